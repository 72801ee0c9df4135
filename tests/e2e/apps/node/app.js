// HTTP and WebSocket on one port, as people write them. A WebSocket's opening says which instance it reached.
const http = require('http')
const os = require('os')
const { WebSocketServer } = require('ws')

const server = http.createServer((request, response) => {
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify({ node: process.version, revision: process.env.K_REVISION }))
})
const sockets = new WebSocketServer({ server })
sockets.on('headers', (headers) => headers.push(`X-Instance: ${os.hostname()}`))
sockets.on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }))
})
server.listen(process.env.PORT)
process.on('SIGTERM', () => server.close(() => process.exit(0)))
