// A TLS client or server on Node: peer.js client|server PORT, the rest from the environment.
'use strict';
const fs = require('fs');
const tls = require('tls');

const [role, port] = [process.argv[2], Number(process.argv[3])];
const env = process.env;
const file = (name) => (env[name] ? fs.readFileSync(env[name]) : undefined);
const options = {
  ca: file('CA'), cert: file('CERT'), key: file('KEY'), crl: file('CRL'),
  minVersion: 'TLSv' + env.TLS, maxVersion: 'TLSv' + env.TLS,
  ALPNProtocols: env.ALPN ? [env.ALPN] : undefined,
};

function connect(left, session) {
  if (left === 0) return;
  const conn = tls.connect({ ...options, host: '127.0.0.1', port, servername: 'localhost', session }, () => conn.write('hello\n'));
  conn.on('session', (s) => { session = s; });
  conn.on('data', (data) => { process.stdout.write('echo: ' + data); conn.end(); });
  conn.on('error', (error) => console.log('refused:', error.code || error.message));
  conn.on('close', () => connect(left - 1, session));
}

function listen() {
  const server = tls.createServer({ ...options, requestCert: !!env.CA, rejectUnauthorized: !!env.CA }, (conn) => {
    conn.on('error', (error) => console.log('refused:', error.code || error.message));
    conn.pipe(conn);
  });
  server.on('tlsClientError', (error) => console.log('refused:', error.code || error.message));
  server.listen(port, '127.0.0.1');
}

if (role === 'client') connect(Number(env.CONNECTIONS)); else listen();
