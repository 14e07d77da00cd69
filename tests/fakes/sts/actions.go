package sts

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	stsSpace = "https://sts.amazonaws.com/doc/2011-06-15/"
	iamSpace = "https://iam.amazonaws.com/doc/2010-05-08/"
)

// fault is an answer that refuses.
type fault struct {
	status        int
	code, message string
}

func (s *Server) refuse(w http.ResponseWriter, f *fault) {
	kind := "Sender"
	if f.status >= 500 {
		kind = "Receiver"
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(f.status)
	fmt.Fprintf(w, "<ErrorResponse xmlns=%q>\n  <Error>\n    <Type>%s</Type>\n    <Code>%s</Code>\n    <Message>%s</Message>\n  </Error>\n  <RequestId>%s</RequestId>\n</ErrorResponse>\n",
		stsSpace, kind, f.code, escape(f.message), requestID())
}

func (s *Server) getCallerIdentity(k *key, form url.Values) (string, *fault) {
	if f := only(form); f != nil {
		return "", f
	}
	arn, id := s.callerARN(k)
	return document(stsSpace, "GetCallerIdentity", element("Arn", arn)+element("UserId", id)+element("Account", s.o.Account)), nil
}

func (s *Server) assumeRole(k *key, form url.Values) (string, *fault) {
	if f := only(form, "RoleArn", "RoleSessionName", "DurationSeconds", "ExternalId"); f != nil {
		return "", f
	}
	session := form.Get("RoleSessionName")
	if !sessionName(session) {
		return "", &fault{http.StatusBadRequest, "ValidationError", "1 validation error detected: Value at 'roleSessionName' failed to satisfy constraint"}
	}
	life := time.Hour
	if d := form.Get("DurationSeconds"); d != "" {
		n, err := strconv.Atoi(d)
		if err != nil || n < 900 || n > 43200 {
			return "", &fault{http.StatusBadRequest, "ValidationError", "1 validation error detected: Value at 'durationSeconds' failed to satisfy constraint"}
		}
		life = time.Duration(n) * time.Second
	}
	caller, _ := s.callerARN(k)
	arn := form.Get("RoleArn")
	name := arn[strings.LastIndexByte(arn, '/')+1:]
	s.mu.Lock()
	defer s.mu.Unlock()
	role := s.people["role/"+name]
	if role == nil || s.arn(role) != arn || !role.trusts[s.arn(k.who)] {
		return "", &fault{http.StatusForbidden, "AccessDenied", "User: " + caller + " is not authorized to perform: sts:AssumeRole on resource: " + arn}
	}
	given := s.issueLocked(role, session, life)
	out, id := s.callerARN(s.keys[given.AccessKeyID])
	return document(stsSpace, "AssumeRole",
		"<AssumedRoleUser>"+element("Arn", out)+element("AssumedRoleId", id)+"</AssumedRoleUser>"+
			"<Credentials>"+element("AccessKeyId", given.AccessKeyID)+element("SecretAccessKey", given.SecretAccessKey)+
			element("SessionToken", given.SessionToken)+element("Expiration", given.Expires.Format(time.RFC3339))+"</Credentials>"), nil
}

func (s *Server) getRole(k *key, form url.Values) (string, *fault) {
	return s.describe(form, "Role", "AssumeRolePolicyDocument")
}

func (s *Server) getUser(k *key, form url.Values) (string, *fault) {
	if form.Get("UserName") == "" && k.session == "" {
		form.Set("UserName", k.who.name) // without a name: who asks
	}
	return s.describe(form, "User", "")
}

// describe answers GetRole and GetUser.
func (s *Server) describe(form url.Values, what, policy string) (string, *fault) {
	if f := only(form, what+"Name"); f != nil {
		return "", f
	}
	name := form.Get(what + "Name")
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.people[strings.ToLower(what)+"/"+name]
	if p == nil {
		return "", &fault{http.StatusNotFound, "NoSuchEntity", "The " + strings.ToLower(what) + " with name " + name + " cannot be found."}
	}
	fields := element("Path", p.path) + element(what+"Name", p.name) + element(what+"Id", p.id) +
		element("Arn", s.arn(p)) + element("CreateDate", "2020-01-01T00:00:00Z")
	if policy != "" {
		fields += element(policy, url.QueryEscape(`{"Version":"2012-10-17","Statement":[]}`))
	}
	return document(iamSpace, "Get"+what, "<"+what+">"+fields+"</"+what+">"), nil
}

// only refuses parameters that an action doesn't have.
func only(form url.Values, names ...string) *fault {
	for name := range form {
		if name == "Action" || name == "Version" {
			continue
		}
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known {
			return &fault{http.StatusBadRequest, "ValidationError", "unexpected parameter " + name}
		}
	}
	return nil
}

// sessionName is the pattern of RoleSessionName: [\w+=,.@-]{2,64}.
func sessionName(s string) bool {
	return len(s) >= 2 && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+=,.@-", r))
	})
}

func document(space, action, result string) string {
	return fmt.Sprintf("<%[1]sResponse xmlns=%[2]q>\n<%[1]sResult>%[3]s</%[1]sResult>\n<ResponseMetadata><RequestId>%[4]s</RequestId></ResponseMetadata>\n</%[1]sResponse>\n",
		action, space, result, requestID())
}

func element(name, value string) string {
	return "<" + name + ">" + escape(value) + "</" + name + ">"
}

func escape(s string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(s)); err != nil {
		return ""
	}
	return b.String()
}

func requestID() string {
	h := random(16)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
