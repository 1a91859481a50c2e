// Sends many random messages over one socket, while it reads their echoes, and fails at the first that differs. See
// conversation.py beside it. The JDK's own client; -Djdk.net.hosts.file tells it where the name leads.

import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Conversation {
    // Sends run ahead of their echoes by this many messages.
    static final int WINDOW = 64;

    record Message(boolean text, byte[] data) {}

    static final ArrayBlockingQueue<Message> underway = new ArrayBlockingQueue<>(WINDOW);
    static final CompletableFuture<Long> all = new CompletableFuture<>();

    static int size(Random random, int number) {
        if (number % 2500 == 1000) return 1 << 20;
        if (random.nextInt(10) < 7) return random.nextInt(126);
        return random.nextInt(3) < 2 ? random.nextInt(4000) : random.nextInt(70001);
    }

    static Message next(Random random, int number) {
        byte[] data = new byte[size(random, number)];
        random.nextBytes(data);
        boolean text = random.nextBoolean();
        for (int at = 0; text && at < data.length; at++) data[at] = (byte) (' ' + (data[at] & 0x3f));
        return new Message(text, data);
    }

    static class Listener implements WebSocket.Listener {
        final int count;
        int echoes;
        long total;
        final ByteArrayOutputStream parts = new ByteArrayOutputStream();

        Listener(int count) {
            this.count = count;
        }

        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            return part(socket, true, data.toString().getBytes(StandardCharsets.UTF_8), last);
        }

        public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
            byte[] bytes = new byte[data.remaining()];
            data.get(bytes);
            return part(socket, false, bytes, last);
        }

        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            all.completeExceptionally(new Exception("closed with " + code + " after " + echoes + " echoes"));
            return null;
        }

        public void onError(WebSocket socket, Throwable error) {
            all.completeExceptionally(error);
        }

        CompletionStage<?> part(WebSocket socket, boolean text, byte[] data, boolean last) {
            parts.writeBytes(data);
            if (last) {
                byte[] whole = parts.toByteArray();
                parts.reset();
                Message sent = underway.poll();
                if (sent == null || sent.text() != text || !Arrays.equals(sent.data(), whole)) {
                    all.completeExceptionally(new Exception("echo " + echoes + " differs, of " + whole.length + " bytes"));
                }
                total += whole.length;
                if (++echoes == count) all.complete(total);
            }
            socket.request(1);
            return null;
        }
    }

    static SSLContext trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream pem = Files.newInputStream(Path.of(file))) {
            store.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    public static void main(String[] arguments) throws Exception {
        Random random = new Random(Long.parseLong(arguments[3]));
        int count = Integer.parseInt(arguments[4]);
        HttpClient http = HttpClient.newBuilder().sslContext(trusting(arguments[2])).build();
        WebSocket socket = http.newWebSocketBuilder().buildAsync(URI.create(arguments[0]), new Listener(count)).join();
        for (int number = 0; number < count && !all.isDone(); number++) {
            Message sent = next(random, number);
            underway.put(sent);
            // One send at a time is all that this client takes.
            if (sent.text()) socket.sendText(new String(sent.data(), StandardCharsets.UTF_8), true).join();
            else socket.sendBinary(ByteBuffer.wrap(sent.data()), true).join();
        }
        long total = all.get();
        socket.sendClose(WebSocket.NORMAL_CLOSURE, "").join();
        System.out.println("done: " + count + " messages, " + total + " bytes");
        System.exit(0);
    }
}
