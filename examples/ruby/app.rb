# Reads a secret through thaw in each invocation.
require "json"
require "net/http"

# The data of a secret in KV version 2, as it is at this invocation. SECRETS_ADDR is for tests.
def read(path, request_id)
  uri = URI("#{ENV.fetch("SECRETS_ADDR", "http://127.0.0.1:8200")}/v1/#{path}")
  response = Net::HTTP.get_response(uri, { "Lambda-Runtime-Aws-Request-Id" => request_id })
  body = JSON.parse(response.body)
  raise "read #{path}: status #{response.code}: #{body["errors"]&.join("; ")}" unless response.is_a?(Net::HTTPOK)

  body["data"]["data"]
end

def handler(event:, context:)
  # Off unless the function has this variable: what thaw knows, for the event {"thaw": "status"}. It names paths, and no secret.
  if event["thaw"] == "status" && ENV["SHOW_THAW_STATUS"] == "true"
    return JSON.parse(Net::HTTP.get(URI("#{ENV.fetch("SECRETS_ADDR", "http://127.0.0.1:8200")}/proxy/v1/status")))
  end

  secret = read("secret/data/app", context.aws_request_id)
  # Use it here. What is returned, and logged, must not have it.
  { user: secret["user"], password_length: secret["password"].length }
end
