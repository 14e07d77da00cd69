package harness

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Moto is a running moto server: the AWS APIs on loopback, with signatures
// checked once EnableSignatureChecks was called
// (https://docs.getmoto.org/en/latest/docs/iam.html).
type Moto struct {
	Admin AWSCredentials // a user who may do everything; made at the start

	addr   string
	dir    string
	proc   *Process
	client *http.Client
}

// AWSCredentials are long-lived or temporary credentials.
type AWSCredentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // empty for a user's own key
	ARN             string // of the user or role
}

// StartMoto starts `python3 -m moto.server`. Errors wrap ErrMissing where moto
// cannot be installed.
func StartMoto(ctx context.Context) (*Moto, error) {
	bin, err := FindPython(ctx)
	if err != nil {
		return nil, err
	}
	python := filepath.Join(bin, "python")
	var last error
	for range startTries {
		var m *Moto
		if m, last = startMoto(ctx, python); last == nil {
			return m, nil
		}
		if !errors.Is(last, errPortTaken) {
			break
		}
	}
	return nil, last
}

func startMoto(ctx context.Context, python string) (*Moto, error) {
	port, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "thaw-moto-")
	if err != nil {
		return nil, fmt.Errorf("make moto's folder: %w", err)
	}
	m := &Moto{addr: loopback(port), dir: dir, client: newClient()}
	m.proc, err = Start(Command{
		Path: python,
		Args: []string{"-m", "moto.server", "-H", "127.0.0.1", "-p", fmt.Sprint(port)},
		Dir:  dir,
	})
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	ready := func() bool { return m.proc.ended() || m.api(ctx, http.MethodGet, "/moto-api/", "") == nil }
	err = poll(ctx, 50*time.Millisecond, ready)
	if err == nil && m.proc.ended() {
		err = endedEarly(m.proc)
	}
	if err == nil {
		m.Admin, err = m.CreateUser(ctx, "admin-"+randomName())
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("start moto at %s: %w\n%s", m.addr, err, m.proc.Tail(2000))
	}
	return m, nil
}

// Addr is the endpoint of every service, with scheme.
func (m *Moto) Addr() string { return "http://" + m.addr }

// Close kills the server.
func (m *Moto) Close() {
	m.proc.Kill()
	m.client.CloseIdleConnections()
	_ = os.RemoveAll(m.dir)
}

// CreateUser makes a user who may do everything, with an access key.
func (m *Moto) CreateUser(ctx context.Context, name string) (AWSCredentials, error) {
	var user struct {
		ARN string `xml:"CreateUserResult>User>Arn"`
	}
	var key struct {
		ID     string `xml:"CreateAccessKeyResult>AccessKey>AccessKeyId"`
		Secret string `xml:"CreateAccessKeyResult>AccessKey>SecretAccessKey"`
	}
	if err := m.call(ctx, "iam", url.Values{"Action": {"CreateUser"}, "UserName": {name}}, &user); err != nil {
		return AWSCredentials{}, err
	}
	if err := m.call(ctx, "iam", url.Values{
		"Action": {"PutUserPolicy"}, "UserName": {name}, "PolicyName": {"all"}, "PolicyDocument": {allowAll},
	}, nil); err != nil {
		return AWSCredentials{}, err
	}
	if err := m.call(ctx, "iam", url.Values{"Action": {"CreateAccessKey"}, "UserName": {name}}, &key); err != nil {
		return AWSCredentials{}, err
	}
	return AWSCredentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret, ARN: user.ARN}, nil
}

// CreateRole makes a role that may do everything and that everybody may
// assume, and returns its ARN.
func (m *Moto) CreateRole(ctx context.Context, name string) (string, error) {
	var role struct {
		ARN string `xml:"CreateRoleResult>Role>Arn"`
	}
	if err := m.call(ctx, "iam", url.Values{
		"Action": {"CreateRole"}, "RoleName": {name}, "AssumeRolePolicyDocument": {assumeAll},
	}, &role); err != nil {
		return "", err
	}
	return role.ARN, m.call(ctx, "iam", url.Values{
		"Action": {"PutRolePolicy"}, "RoleName": {name}, "PolicyName": {"all"}, "PolicyDocument": {allowAll},
	}, nil)
}

// AssumeRole returns temporary credentials of a role, such as a Lambda
// function has.
func (m *Moto) AssumeRole(ctx context.Context, arn, session string) (AWSCredentials, error) {
	var out struct {
		ID     string `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
		Secret string `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
		Token  string `xml:"AssumeRoleResult>Credentials>SessionToken"`
		ARN    string `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	}
	err := m.call(ctx, "sts", url.Values{
		"Action": {"AssumeRole"}, "RoleArn": {arn}, "RoleSessionName": {session},
	}, &out)
	return AWSCredentials{AccessKeyID: out.ID, SecretAccessKey: out.Secret, SessionToken: out.Token, ARN: out.ARN}, err
}

// EnableSignatureChecks makes moto check signatures and policies from the
// next request on. Users and roles are made before.
func (m *Moto) EnableSignatureChecks(ctx context.Context) error {
	return m.api(ctx, http.MethodPost, "/moto-api/reset-auth", "0")
}

const (
	allowAll  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	assumeAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`
)

// api calls moto's own interface.
func (m *Moto) api(ctx context.Context, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, m.Addr()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	return m.send(req, nil)
}

// call sends a query-protocol request. moto finds the service by the
// credential scope; the signature counts only when checks are on.
func (m *Moto) call(ctx context.Context, service string, form url.Values, into any) error {
	form.Set("Version", map[string]string{"iam": "2010-05-08", "sts": "2011-06-15"}[service])
	body := form.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.Addr()+"/", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	SignAWS(req, body, m.Admin, "us-east-1", service, time.Now())
	if err := m.send(req, into); err != nil {
		return fmt.Errorf("moto %s: %w", form.Get("Action"), err)
	}
	return nil
}

func (m *Moto) send(req *http.Request, into any) error {
	resp, err := m.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %.300s", resp.StatusCode, b)
	}
	if into == nil {
		return nil
	}
	return xml.Unmarshal(b, into)
}
