package example;

import static org.junit.jupiter.api.Assertions.assertTrue;

import com.amazonaws.services.lambda.runtime.Context;
import java.io.BufferedReader;
import java.io.IOException;
import java.lang.reflect.Proxy;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.UUID;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A function's behaviour when a secret is rotated, and when Vault is down. Needs thaw-dev: see ../README.md. */
class HandlerTest {
    @TempDir
    Path folder;

    private Process dev;
    private BufferedReader lines;
    private String addr;

    @BeforeEach
    void start() throws IOException {
        set("one");
        dev = new ProcessBuilder("thaw-dev", "-listen", "127.0.0.1:0", folder.resolve("secrets.json").toString()).start();
        lines = dev.inputReader();
        String line = line("VAULT_ADDR=");
        addr = line.substring(line.indexOf("http://"));
    }

    @AfterEach
    void stop() throws InterruptedException {
        dev.destroy();
        dev.waitFor();
    }

    private void set(String password) throws IOException {
        Files.writeString(folder.resolve("secrets.json"), "{\"secret/data/app\": {\"user\": \"app\", \"password\": \"" + password + "\"}}");
    }

    private String line(String with) throws IOException {
        for (String line; (line = lines.readLine()) != null; ) {
            if (line.contains(with)) {
                return line;
            }
        }
        throw new IOException("thaw-dev ended");
    }

    private String invocation() {
        return new Handler(addr, Map.of()).read("secret/data/app", UUID.randomUUID().toString());
    }

    private String status(Map<String, String> env) {
        var context = (Context) Proxy.newProxyInstance(getClass().getClassLoader(), new Class<?>[] {Context.class},
            (self, method, args) -> method.getName().equals("getAwsRequestId") ? UUID.randomUUID().toString() : null);
        return new Handler(addr, env).handleRequest(Map.of("thaw", "status"), context);
    }

    @Test
    void theStatusIsShownWhereItIsSwitchedOn() {
        assertTrue(status(Map.of()).startsWith("read "));
        assertTrue(status(Map.of("SHOW_THAW_STATUS", "true")).contains("\"entries\":1"));
    }

    @Test
    void theNextInvocationSeesARotationAndAnOutageStopsNothing() throws Exception {
        assertTrue(invocation().contains("\"one\""));
        set("two");
        line("rotated");
        assertTrue(invocation().contains("\"two\""));
        var down = HttpRequest.newBuilder(URI.create(addr + "/dev/down")).POST(BodyPublishers.noBody()).build();
        HttpClient.newHttpClient().send(down, BodyHandlers.discarding());
        assertTrue(invocation().contains("\"two\""));
    }
}
