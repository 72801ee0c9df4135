#!/bin/sh
# Says who answers. GET /?ms=500 takes half a second: a request that lasts, to see scaling.
case "$QUERY_STRING" in
  *ms=*) ms=${QUERY_STRING##*ms=}; ms=${ms%%[!0-9]*}; [ -z "$ms" ] || busybox usleep "${ms}000" ;;
esac
printf 'Content-Type: text/plain\r\n\r\n'
echo "${GREETING:-Hello} from service ${K_SERVICE:-none}, revision ${K_REVISION:-none}, instance $(busybox hostname)"
