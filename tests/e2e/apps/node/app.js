// HTTP and WebSocket on one port, as people write them.
const http = require('http')
const { WebSocketServer } = require('ws')

const server = http.createServer((request, response) => {
  response.setHeader('Content-Type', 'application/json')
  response.end(JSON.stringify({ node: process.version, revision: process.env.K_REVISION }))
})
new WebSocketServer({ server }).on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }))
})
server.listen(process.env.PORT)
process.on('SIGTERM', () => server.close(() => process.exit(0)))
