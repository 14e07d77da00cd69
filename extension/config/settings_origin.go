package config

import (
	"time"
)

const day = 24 * time.Hour

// originSettings is how Vault is reached. The VAULT_ names and their meaning
// are those of vault/api: https://developer.hashicorp.com/vault/docs/commands#environment-variables
func originSettings(rows []setting) []setting {
	return append(rows,
		text("THAW_VAULT_ADDRS", "addresses, comma-separated", func(d *draft) *string { return &d.thawAddrs },
			"Vault's addresses. Wins over the two below."),
		text("VLE_VAULT_ADDR", "http(s)://host[:port][/base] or unix:///path", func(d *draft) *string { return &d.vleAddr },
			"Vault's address. With it, `VAULT_ADDR` may point the function's own client at thaw."),
		text("VAULT_ADDR", "http(s)://host[:port][/base] or unix:///path", func(d *draft) *string { return &d.vaultAddr },
			"Vault's address. One of the three is required."),
		text("THAW_VAULT_READ_ADDRS", "addresses, comma-separated", func(d *draft) *string { return &d.readAddrs },
			"Further addresses of the same cluster, such as `https://performance-standby.vault.service.consul:8200`. Needs `THAW_READS=standby`."),
		flag("VAULT_SRV_LOOKUP", "false", func(d *draft) *bool { return &d.SRVLookup },
			"Look up SRV records (`_http._tcp`) of an address without a port; each is a node."),
		choice("THAW_READS", "active", func(d *draft, v string) { d.StandbyReads = v == "standby" },
			"Which nodes answer reads. `standby`: those that serve reads from a copy, which may lag, by latency; fresh then means what that node answers.", "active", "standby"),
		flag("THAW_DISABLE_PERFORMANCE_STANDBY", "false", func(d *draft) *bool { return &d.ActiveOnly },
			"Look for the active node, also behind one address, and send everything there. Wins over `THAW_READS`."),
		parsed("VAULT_NAMESPACE", "", "namespace path", func(d *draft, v string) (err error) {
			d.Namespace, err = parseNamespace(v)
			return err
		}, "Namespace of thaw's own login and files, and of callers that name none."),
		text("VAULT_CACERT", "file", func(d *draft) *string { return &d.TLS.CACert },
			"PEM file of the CA that signed Vault's certificate. Wins over the two below."),
		parsed("VAULT_CACERT_BYTES", "", "PEM text", parsePEM,
			"The same as text. Wins over `VAULT_CAPATH`."),
		text("VAULT_CAPATH", "directory", func(d *draft) *string { return &d.TLS.CAPath },
			"Directory of PEM files of CAs."),
		text("VAULT_CLIENT_CERT", "file", func(d *draft) *string { return &d.TLS.ClientCert },
			"PEM file of the client certificate shown to Vault."),
		text("VAULT_CLIENT_KEY", "file", func(d *draft) *string { return &d.TLS.ClientKey },
			"PEM file of that certificate's key."),
		text("VAULT_TLS_SERVER_NAME", "host name", func(d *draft) *string { return &d.TLS.ServerName },
			"Name expected in Vault's certificate, if not the address's host."),
		flag("VAULT_SKIP_VERIFY", "false", func(d *draft) *bool { return &d.TLS.SkipVerify },
			"Don't verify Vault's certificate. Anyone in between can then read every secret."),
		secret(parsed("VAULT_HEADERS", "", "JSON object of strings", parseHeaders,
			"Headers sent with every request to Vault.")),
		duration("VAULT_CLIENT_TIMEOUT", "60s", 0, time.Hour, func(d *draft) *time.Duration { return &d.ClientTimeout },
			"Longest time for one request to Vault with its retries. A bare number is seconds; `0` is the default."),
		number("VAULT_MAX_RETRIES", "2", 0, 100, func(d *draft) *int { return &d.MaxRetries },
			"Retries of a request that Vault did not answer."),
		parsed("VAULT_RATE_LIMIT", "", "rate or rate:burst, in requests per second", parseRateLimit,
			"Limit on requests to Vault. `0` is none; burst defaults to the rate."),
		secret(text("VAULT_PROXY_ADDR", "address", func(d *draft) *string { return &d.vaultProxy },
			"HTTP proxy for requests to Vault, whatever `NO_PROXY` says. Wins over the next.")),
		secret(text("VAULT_HTTP_PROXY", "address", func(d *draft) *string { return &d.vaultHTTPProxy },
			"The same, older name.")),
		secret(text("HTTPS_PROXY", "address", func(d *draft) *string { return &d.httpsProxy },
			"HTTP proxy for https requests. Lower case works too.")),
		secret(text("HTTP_PROXY", "address", func(d *draft) *string { return &d.httpProxy },
			"HTTP proxy for http requests. Lower case works too.")),
		text("NO_PROXY", "hosts, comma-separated", func(d *draft) *string { return &d.noProxy },
			"Hosts that are reached without the two above. Lower case works too."),
		duration("THAW_CONNECT_TIMEOUT", "1s", 10*time.Millisecond, time.Minute, func(d *draft) *time.Duration { return &d.ConnTimeout },
			"Longest time for a TCP connect, and again for its TLS handshake."),
		duration("THAW_IDLE_CONN", "30s", 0, time.Hour, func(d *draft) *time.Duration { return &d.IdleConn },
			"A connection idle for longer (a freeze counts) is not used again."),
		number("THAW_MAX_IN_FLIGHT", "64", 1, 4096, func(d *draft) *int { return &d.MaxInFlight },
			"Requests to Vault at a time."),
		choice("THAW_ENFORCE_CONSISTENCY", "never", func(d *draft, v string) { d.EnforceConsistency = v },
			"As Vault Proxy's `enforce_consistency`: under `always` an identity's reads see what it wrote (Vault Enterprise).", "never", "always"),
		choice("THAW_WHEN_INCONSISTENT", "fail", func(d *draft, v string) { d.WhenInconsistent = v },
			"As Vault Proxy's `when_inconsistent`: what is done about a node that lags. Without effect under `never`.", "fail", "retry", "forward"),
		choice("THAW_CONSISTENCY_SCOPE", "instance", func(d *draft, v string) { d.ConsistencyScope = v },
			"Whose writes a read sees: this instance's, or through the shared cache those of every instance of the audience.", "instance", "audience"),
		choice("THAW_EVENTS", "auto", func(d *draft, v string) { d.Events = v == "auto" },
			"Where the host does not freeze: `auto` listens to Vault Enterprise's events and polls each secret only every 30s while the stream is whole.", "auto", "off"),
		duration("THAW_WAL_WAIT", "2s", 0, time.Minute, func(d *draft) *time.Duration { return &d.WALWait },
			"How long `retry` waits for a node that lags before it asks the active node."),
	)
}

// authSettings is how thaw gets a token of its own.
func authSettings(rows []setting) []setting {
	return append(rows,
		choice("THAW_AUTH_METHOD", "", func(d *draft, v string) { d.Auth.Method = AuthMethod(v) },
			"How thaw logs in. Unset: the file's `auto_auth`; else aws, in Lambda with `VAULT_AUTH_ROLE`; else `VAULT_TOKEN`; else none.",
			"aws", "azure", "approle", "jwt", "token", "token_file", "none"),
		parsed("VAULT_AUTH_PROVIDER", "", "mount path", func(d *draft, v string) (err error) {
			d.mount, err = parseMount(v)
			return err
		}, "Mount of the auth method in Vault; `auth/` in front may stay. Default: the method's name."),
		text("VAULT_AUTH_ROLE", "name", func(d *draft) *string { return &d.Auth.Role },
			"Role to log in with. Required for aws."),
		parsed("VAULT_IAM_SERVER_ID", "", "header value", func(d *draft, v string) error {
			d.Auth.ServerID = v
			return checkHeaderValue(v)
		}, "aws: value of the signed header `X-Vault-AWS-IAM-Server-ID`."),
		parsed("VAULT_STS_ENDPOINT_REGION", "", "region", func(d *draft, v string) error {
			d.Auth.STSRegion = v
			return checkRegion(v)
		}, "aws: region whose STS the login is signed for. Default: the global endpoint."),
		parsed("VAULT_ASSUMED_ROLE_ARN", "", "ARN of an IAM role", func(d *draft, v string) error {
			d.Auth.AssumeRole = v
			return checkRoleARN(v)
		}, "aws: role to assume before the login."),
		text("THAW_ROLE_ID", "text", func(d *draft) *string { return &d.Auth.RoleID },
			"approle: the role id."),
		text("THAW_ROLE_ID_FILE", "file", func(d *draft) *string { return &d.Auth.RoleIDFile },
			"approle: file with the role id."),
		hidden("THAW_SECRET_ID", "text", func(d *draft) *Secret { return &d.Auth.SecretID },
			"approle: the secret id."),
		text("THAW_SECRET_ID_FILE", "file", func(d *draft) *string { return &d.Auth.SecretFile },
			"approle: file with the secret id. It is kept after reading."),
		text("THAW_JWT_FILE", "file", func(d *draft) *string { return &d.Auth.JWTFile },
			"jwt: file with the token to log in with."),
		hidden("VAULT_TOKEN", "token", func(d *draft) *Secret { return &d.Auth.Token },
			"token: the Vault token to use."),
		text("THAW_TOKEN_FILE", "file", func(d *draft) *string { return &d.Auth.TokenFile },
			"token_file: file with the Vault token to use."),
		duration("VAULT_TOKEN_EXPIRY_GRACE_PERIOD", "10s", 0, day, func(d *draft) *time.Duration { return &d.Auth.ExpiryGrace },
			"Log in again when the token has less than this left."),
	)
}

// platformSettings is what Lambda and AWS set, and what AWS's own tools know.
// https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
// https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
func platformSettings(rows []setting) []setting {
	first := len(rows)
	rows = append(rows,
		text("AWS_LAMBDA_RUNTIME_API", "host:port", func(d *draft) *string { return &d.Platform.RuntimeAPI },
			"Lambda's Extensions API; its presence says that this is Lambda."),
		parsed("AWS_LAMBDA_INITIALIZATION_TYPE", "", "word", func(d *draft, v string) error {
			d.Platform.InitType = InitType(v)
			return checkLine(v)
		}, "How the environment was started."),
		text("AWS_LAMBDA_FUNCTION_NAME", "name", func(d *draft) *string { return &d.Platform.FunctionName },
			"The function's name."),
		parsed("AWS_REGION", "", "region", func(d *draft, v string) error {
			d.Platform.Region = v
			return checkRegion(v)
		}, "The function's region."),
		parsed("AWS_DEFAULT_REGION", "", "region", func(d *draft, v string) error {
			d.defaultRegion = v
			return checkRegion(v)
		}, "The same, where `AWS_REGION` is unset."),
		text("AWS_ACCESS_KEY_ID", "text", func(d *draft) *string { return &d.Platform.AWS.AccessKeyID },
			"The function's credentials."),
		hidden("AWS_SECRET_ACCESS_KEY", "text", func(d *draft) *Secret { return &d.Platform.AWS.SecretAccessKey },
			"The function's credentials."),
		hidden("AWS_SESSION_TOKEN", "text", func(d *draft) *Secret { return &d.Platform.AWS.SessionToken },
			"The function's credentials."),
		text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "path", func(d *draft) *string { return &d.relativeURI },
			"Where a container gets credentials, below http://169.254.170.2. Wins over the next."),
		text("AWS_CONTAINER_CREDENTIALS_FULL_URI", "address", func(d *draft) *string { return &d.Platform.AWS.CredentialsURI },
			"Where a SnapStart function or a container gets credentials."),
		hidden("AWS_CONTAINER_AUTHORIZATION_TOKEN", "text", func(d *draft) *Secret { return &d.Platform.AWS.CredentialsAuth },
			"The Authorization header for that."),
		text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "file", func(d *draft) *string { return &d.Platform.AWS.CredentialsFile },
			"The same from a file; wins."),
	)
	for i := first; i < len(rows); i++ {
		rows[i].Platform = true
	}
	return append(rows,
		choice("AWS_STS_REGIONAL_ENDPOINTS", "", func(d *draft, v string) { d.Platform.AWS.RegionalSTS = v == "regional" },
			"aws: `regional` signs for the function's own region where `VAULT_STS_ENDPOINT_REGION` is unset.", "legacy", "regional"),
		flag("AWS_USE_FIPS_ENDPOINT", "", func(d *draft) *bool { return &d.Platform.AWS.UseFIPS },
			"aws: use the FIPS endpoints of STS and KMS."),
		text("AWS_ENDPOINT_URL_STS", "address", func(d *draft) *string { return &d.Platform.AWS.EndpointSTS },
			"aws: STS's address, if not AWS's own."),
		text("AWS_ENDPOINT_URL_KMS", "address", func(d *draft) *string { return &d.Platform.AWS.EndpointKMS },
			"aws: KMS's address, if not AWS's own."),
		text("AWS_ENDPOINT_URL", "address", func(d *draft) *string { return &d.endpoint },
			"aws: the same for every service."),
		flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "", func(d *draft) *bool { return &d.ignoreEndpoints },
			"aws: ignore the three above."),
	)
}
