package config

import "strings"

// fileAuth is auto_auth as the file has it.
type fileAuth struct {
	Auth
	at place // of the method block
}

// resolveAuth chooses the way to log in and puts its settings together: the
// environment's, and the file's where the file names the same method.
func (l *loader) resolveAuth() {
	a := &l.d.Auth
	method, why := l.chooseMethod()
	a.Method = method
	if l.file.auth != nil && l.file.auth.Method == method {
		l.mergeFileAuth()
	}
	if l.d.mount != "" {
		a.Mount = l.d.mount
	}
	if a.Mount == "" {
		switch method {
		case AuthAWS, AuthAzure, AuthAppRole, AuthJWT:
			a.Mount = string(method)
		}
	}
	if a.SecretFile == "" || l.isSet("THAW_SECRET_ID_FILE") {
		a.KeepSecret = true
	}
	if !l.bad["THAW_AUTH_METHOD"] {
		l.checkMethod(why)
		l.checkUnusedAuth(why)
	}
	if method != AuthToken {
		a.Token = "" // nobody's: the function's own client may have it
	}
}

// chooseMethod applies the rule: THAW_AUTH_METHOD; the file's auto_auth; the
// platform's if there is a role; VAULT_TOKEN; none. It also says where the
// answer comes from, for messages.
func (l *loader) chooseMethod() (AuthMethod, place) {
	d := &l.d
	switch {
	case d.Auth.Method != "":
		return d.Auth.Method, place{name: "THAW_AUTH_METHOD"}
	case l.file.auth != nil:
		return l.file.auth.Method, l.file.auth.at
	case d.Auth.Role != "" && d.Platform.Lambda:
		return AuthAWS, place{name: "VAULT_AUTH_ROLE"}
	case d.Auth.Role != "" && l.azure != nil:
		return AuthAzure, place{name: "VAULT_AUTH_ROLE"}
	case d.Auth.Token != "":
		if d.Auth.Role != "" {
			l.warn("VAULT_AUTH_ROLE has no effect outside Lambda beside VAULT_TOKEN; set THAW_AUTH_METHOD=aws to log in with the role instead")
		}
		return AuthToken, place{name: "VAULT_TOKEN"}
	case l.bad["VAULT_AUTH_ROLE"] || l.bad["VAULT_TOKEN"] || l.bad["THAW_AUTH_METHOD"] || l.file.broken || l.file.badAuth:
		return AuthNone, place{}
	}
	if d.Auth.Role != "" {
		l.warn("VAULT_AUTH_ROLE has no effect outside Lambda by itself; set THAW_AUTH_METHOD=aws (or jwt) to log in with it. Until then callers must bring their own tokens")
	} else if d.mount != "" && d.Platform.Lambda {
		l.problem(&Problem{Name: "VAULT_AUTH_ROLE", Message: "missing: VAULT_AUTH_PROVIDER names an auth mount, but there is no role to log in with; set VAULT_AUTH_ROLE, or remove VAULT_AUTH_PROVIDER if callers bring their own tokens"})
	} else if d.Platform.Lambda {
		l.warn("no login is configured: callers must bring their own Vault tokens; set VAULT_AUTH_ROLE (or THAW_AUTH_METHOD) to let thaw log in, or THAW_AUTH_METHOD=none if that is meant")
	}
	return AuthNone, place{}
}

// mergeFileAuth takes from the file what the environment leaves open.
func (l *loader) mergeFileAuth() {
	a, f := &l.d.Auth, &l.file.auth.Auth
	for _, pair := range []struct{ to, from *string }{
		{&a.Mount, &f.Mount},
		{&a.Namespace, &f.Namespace},
		{&a.Role, &f.Role},
		{&a.ServerID, &f.ServerID},
		{&a.STSRegion, &f.STSRegion},
		{&a.JWTFile, &f.JWTFile},
		{&a.AzureResource, &f.AzureResource},
		{&a.AzureClientID, &f.AzureClientID},
		{&a.TokenFile, &f.TokenFile},
	} {
		if *pair.to == "" {
			*pair.to = *pair.from
		}
	}
	if a.RoleID == "" && a.RoleIDFile == "" {
		a.RoleIDFile = f.RoleIDFile
	}
	if a.SecretID == "" && a.SecretFile == "" {
		a.SecretFile, a.KeepSecret = f.SecretFile, f.KeepSecret
	}
	if l.file.awsKeyID != "" {
		// Written for this login, where the environment's are the platform's.
		aws := &l.d.Platform.AWS
		aws.AccessKeyID, aws.SecretAccessKey, aws.SessionToken = l.file.awsKeyID, l.file.awsSecret, l.file.awsSession
	}
}

// checkMethod reports what the chosen method lacks or has twice.
func (l *loader) checkMethod(why place) {
	a := &l.d.Auth
	missing := func(variable, key, what string) {
		for name := range strings.SplitSeq(variable, " or ") {
			if l.bad[name] {
				return
			}
		}
		if l.file.badAuth {
			return
		}
		l.problem(&Problem{Name: why.name, File: why.file, Line: why.line, Value: string(a.Method),
			Message: "the " + string(a.Method) + " login needs " + what + "; set " + variable + l.orInFile(key)})
	}
	twice := func(one, other string) {
		l.problem(&Problem{Name: one, Message: "contradicts " + other + ", which is set too; keep one of them"})
	}
	switch a.Method {
	case AuthAWS:
		if a.Role == "" {
			missing("VAULT_AUTH_ROLE", "role", "a role")
		}
	case AuthAzure:
		if l.azure == nil {
			l.refuse(why, string(a.Method), "the azure login needs thaw-azure, the program for Azure Functions")
			return
		}
		if a.Role == "" {
			missing("VAULT_AUTH_ROLE", "role", "a role")
		}
		l.azure.login(l, why)
	case AuthAppRole:
		if a.RoleID == "" && a.RoleIDFile == "" {
			missing("THAW_ROLE_ID or THAW_ROLE_ID_FILE", "role_id_file_path", "a role id")
		}
		if a.RoleID != "" && a.RoleIDFile != "" {
			twice("THAW_ROLE_ID", "THAW_ROLE_ID_FILE")
		}
		if a.SecretID != "" && a.SecretFile != "" {
			twice("THAW_SECRET_ID", "THAW_SECRET_ID_FILE")
		}
	case AuthJWT:
		if a.JWTFile == "" && a.AzureResource != "" && l.azure != nil {
			l.azure.login(l, why)
		} else if a.JWTFile == "" {
			missing("THAW_JWT_FILE", "path", "a file with the token to log in with")
		}
	case AuthToken:
		if a.Token == "" {
			missing("VAULT_TOKEN", "", "a token")
		}
	case AuthTokenFile:
		if a.TokenFile == "" {
			missing("THAW_TOKEN_FILE", "token_file_path", "a file with the token")
		}
	}
}

// orInFile adds the key that does the same in the file, if there is a file.
func (l *loader) orInFile(key string) string {
	if l.file.auth == nil || key == "" {
		return ""
	}
	return ", or " + key + " in the method's config block"
}

// checkUnusedAuth reports THAW_ settings of a method that is not the one in
// use: most likely the method was forgotten.
func (l *loader) checkUnusedAuth(why place) {
	for _, of := range []struct {
		method AuthMethod
		names  string
	}{
		{AuthAppRole, "THAW_ROLE_ID THAW_ROLE_ID_FILE THAW_SECRET_ID THAW_SECRET_ID_FILE"},
		{AuthJWT, "THAW_JWT_FILE"},
		{AuthTokenFile, "THAW_TOKEN_FILE"},
	} {
		if of.method == l.d.Auth.Method {
			continue
		}
		for name := range strings.FieldsSeq(of.names) {
			if !l.isSet(name) {
				continue
			}
			in := "no login is chosen"
			if why.name != "" {
				in = "the login in use is " + string(l.d.Auth.Method) + " (from " + why.name + ")"
			}
			l.problem(&Problem{Name: name, Message: "has no effect, since " + in + "; set THAW_AUTH_METHOD=" + string(of.method) + " or remove it"})
		}
	}
}
