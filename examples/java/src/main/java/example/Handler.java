package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Map;

/** Reads a secret through thaw in each invocation. */
public class Handler implements RequestHandler<Map<String, Object>, String> {
    private final HttpClient client = HttpClient.newHttpClient();
    private final String thaw;
    private final boolean showStatus;

    public Handler() {
        this("http://127.0.0.1:8200", System.getenv());
    }

    Handler(String thaw, Map<String, String> env) {
        this.thaw = thaw;
        this.showStatus = "true".equals(env.get("SHOW_THAW_STATUS"));
    }

    @Override
    public String handleRequest(Map<String, Object> event, Context context) {
        // Off unless the function has this variable: what thaw knows, for the event {"thaw": "status"}. It names paths, and no secret.
        if (showStatus && "status".equals(event.get("thaw"))) {
            return get("/proxy/v1/status", context.getAwsRequestId());
        }
        String body = read("secret/data/app", context.getAwsRequestId());
        // Read body with your JSON library: the secret is in data.data. What is returned, and logged, must not have it.
        return "read " + body.length() + " characters";
    }

    /** Vault's answer about a secret, as it is at this invocation. */
    String read(String path, String requestId) {
        return get("/v1/" + path, requestId);
    }

    private String get(String path, String requestId) {
        HttpRequest request = HttpRequest.newBuilder(URI.create(thaw + path))
            .header("Lambda-Runtime-Aws-Request-Id", requestId)
            .build();
        try {
            var response = client.send(request, BodyHandlers.ofString());
            if (response.statusCode() != 200) {
                throw new IllegalStateException("read " + path + ": status " + response.statusCode() + ": " + response.body());
            }
            return response.body();
        } catch (IOException e) {
            throw new IllegalStateException("read " + path, e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("read " + path, e);
        }
    }
}
