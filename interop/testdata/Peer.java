import java.io.FileInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.CertStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.List;
import javax.net.ssl.CertPathTrustManagerParameters;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SNIHostName;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509ExtendedKeyManager;

/** A TLS client or server on JSSE: java Peer.java client|server PORT, the rest from the environment. */
class Peer {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[1]);
        if (args[0].equals("client")) {
            client(port);
        } else {
            server(port);
        }
    }

    static String env(String name) {
        return System.getenv().getOrDefault(name, "");
    }

    static void client(int port) throws Exception {
        SSLContext context = context();
        for (int left = Integer.parseInt(env("CONNECTIONS")); left > 0; left--) {
            // The host is the key of JSSE's session cache.
            try (SSLSocket socket = (SSLSocket) context.getSocketFactory().createSocket("127.0.0.1", port)) {
                SSLParameters parameters = parameters(socket.getSSLParameters());
                parameters.setServerNames(List.of(new SNIHostName("localhost")));
                parameters.setEndpointIdentificationAlgorithm("HTTPS");
                socket.setSSLParameters(parameters);
                socket.startHandshake();
                socket.getOutputStream().write("hello\n".getBytes());
                byte[] answer = socket.getInputStream().readNBytes(6);
                System.out.print("echo: " + new String(answer));
            } catch (IOException e) {
                System.out.println("refused: " + e);
            }
        }
    }

    static void server(int port) throws Exception {
        SSLServerSocket listener = (SSLServerSocket) context().getServerSocketFactory()
            .createServerSocket(port, 50, InetAddress.getLoopbackAddress());
        SSLParameters parameters = parameters(listener.getSSLParameters());
        parameters.setNeedClientAuth(!env("CA").isEmpty());
        listener.setSSLParameters(parameters);
        while (true) {
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                socket.startHandshake();
                socket.getInputStream().transferTo(socket.getOutputStream());
            } catch (IOException e) {
                System.out.println("refused: " + e);
            }
        }
    }

    static SSLParameters parameters(SSLParameters parameters) {
        parameters.setProtocols(new String[] {"TLSv" + env("TLS")});
        if (!env("ALPN").isEmpty()) {
            parameters.setApplicationProtocols(new String[] {env("ALPN")});
        }
        return parameters;
    }

    static SSLContext context() throws Exception {
        CertificateFactory x509 = CertificateFactory.getInstance("X.509");
        KeyStore keys = KeyStore.getInstance("PKCS12");
        keys.load(null, null);
        if (!env("CERT").isEmpty()) {
            Certificate[] chain;
            try (FileInputStream file = new FileInputStream(env("CERT"))) {
                chain = x509.generateCertificates(file).toArray(new Certificate[0]);
            }
            keys.setKeyEntry("own", key(env("KEY")), new char[0], chain);
        }
        KeyManagerFactory own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        own.init(keys, new char[0]);

        KeyStore roots = KeyStore.getInstance("PKCS12");
        roots.load(null, null);
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        if (!env("CA").isEmpty()) {
            try (FileInputStream file = new FileInputStream(env("CA"))) {
                roots.setCertificateEntry("root", x509.generateCertificate(file));
            }
        }
        if (env("CRL").isEmpty()) {
            trust.init(roots);
        } else {
            try (FileInputStream file = new FileInputStream(env("CRL"))) {
                PKIXBuilderParameters revocation = new PKIXBuilderParameters(roots, new X509CertSelector());
                revocation.addCertStore(CertStore.getInstance("Collection",
                    new CollectionCertStoreParameters(x509.generateCRLs(file))));
                trust.init(new CertPathTrustManagerParameters(revocation));
            }
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(new KeyManager[] {new AnyIssuer((X509ExtendedKeyManager) own.getKeyManagers()[0])},
            trust.getTrustManagers(), null);
        return context;
    }

    /** Presents the own certificate also to a server that asks for other issuers, so that it is refused for what it is. */
    static class AnyIssuer extends X509ExtendedKeyManager {
        private final X509ExtendedKeyManager own;

        AnyIssuer(X509ExtendedKeyManager own) {
            this.own = own;
        }

        @Override
        public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
            return own.getCertificateChain("own") == null ? null : "own";
        }

        @Override
        public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
            return own.chooseServerAlias(type, issuers, socket);
        }

        @Override
        public String[] getClientAliases(String type, Principal[] issuers) {
            return own.getClientAliases(type, issuers);
        }

        @Override
        public String[] getServerAliases(String type, Principal[] issuers) {
            return own.getServerAliases(type, issuers);
        }

        @Override
        public X509Certificate[] getCertificateChain(String alias) {
            return own.getCertificateChain(alias);
        }

        @Override
        public PrivateKey getPrivateKey(String alias) {
            return own.getPrivateKey(alias);
        }
    }

    static PrivateKey key(String path) throws Exception {
        String base64 = Files.readString(Path.of(path)).replaceAll("-----.*-----", "");
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(base64)));
    }
}
