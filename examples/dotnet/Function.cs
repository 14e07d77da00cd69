// Reads a secret through thaw in each invocation. This example was read here, and not run.
using System.Text.Json;
using Amazon.Lambda.Core;

[assembly: LambdaSerializer(typeof(Amazon.Lambda.Serialization.SystemTextJson.DefaultLambdaJsonSerializer))]

namespace Example;

public record Event(string? Thaw);

public record Answer(string? User, int PasswordLength);

public class Function
{
    static readonly HttpClient thaw = new() { BaseAddress = new Uri(Environment.GetEnvironmentVariable("SECRETS_ADDR") ?? "http://127.0.0.1:8200") };

    public async Task<object> Handler(Event input, ILambdaContext context)
    {
        // Off unless the function has this variable: what thaw knows, for the event {"thaw": "status"}. It names paths, and no secret.
        if (input.Thaw == "status" && Environment.GetEnvironmentVariable("SHOW_THAW_STATUS") == "true")
            return JsonDocument.Parse(await thaw.GetStringAsync("/proxy/v1/status")).RootElement;
        using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/secret/data/app");
        request.Headers.Add("Lambda-Runtime-Aws-Request-Id", context.AwsRequestId);
        using var response = await thaw.SendAsync(request);
        response.EnsureSuccessStatusCode();
        using var body = await JsonDocument.ParseAsync(await response.Content.ReadAsStreamAsync());
        var secret = body.RootElement.GetProperty("data").GetProperty("data");
        // Use it here. What is returned, and logged, must not have it.
        return new Answer(secret.GetProperty("user").GetString(), secret.GetProperty("password").GetString()!.Length);
    }
}
