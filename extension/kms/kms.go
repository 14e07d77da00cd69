// Package kms has AWS KMS decrypt the keys that seal the shared cache.
//
// A key is made once (kms:GenerateDataKey, or kms:Encrypt of 32 random bytes)
// and configured as KMS encrypted it. Each process sends that ciphertext to KMS
// once, in one signed POST, and keeps what comes back in memory. The encryption
// context names the audience: KMS gives a ciphertext's key to no other audience,
// and a key policy can demand the same of whoever asks
// (https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html).
//
// Of AWS's SDK only the signer is linked: every cold start would pay for the size
// of its KMS client, for one call. No error here holds a key, a
// ciphertext, or anything else of KMS's answer than its status and its code.
package kms

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/thaw-project/thaw/extension/config"
)

// KeySize is the size of a data key in bytes.
const KeySize = 32

// maxAnswer bounds an answer: a data key in base64, an ARN, or an error's text.
const maxAnswer = 64 << 10

// Options configures a Client.
type Options struct {
	AWS         config.AWS                                     // endpoint and FIPS
	Region      string                                         // of the KMS key; required
	Credentials func(context.Context) (aws.Credentials, error) // to sign with; required
	HTTP        *http.Client                                   // required; a context bounds each call
}

// Client asks one KMS. It is safe for concurrent use if Credentials is.
type Client struct {
	o   Options
	url *url.URL
}

// New checks the options. It does no I/O.
func New(o Options) (*Client, error) {
	if o.Region == "" {
		return nil, errors.New("the region of the KMS key is not known: set AWS_REGION")
	}
	u, err := endpoint(o.AWS, o.Region)
	if err != nil {
		return nil, err
	}
	direct := *o.HTTP
	// What is signed for KMS goes to KMS only.
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.HTTP = &direct
	return &Client{o, u}, nil
}

// endpoint is KMS's address (https://docs.aws.amazon.com/general/latest/gr/kms.html).
// GovCloud has a FIPS endpoint of its own name, unlike STS's.
func endpoint(a config.AWS, region string) (*url.URL, error) {
	if !config.IsRegion(region) {
		return nil, fmt.Errorf("AWS region %q is not a region's name: check AWS_REGION", region)
	}
	if e := a.EndpointKMS; e != "" {
		return config.ServiceURL("AWS_ENDPOINT_URL_KMS", e)
	}
	name := "kms."
	if a.UseFIPS {
		name = "kms-fips."
	}
	return &url.URL{Scheme: "https", Host: name + region + "." + config.PartitionOf(region).Domain, Path: "/"}, nil
}

// DataKeys decrypts an audience's keys, in their order. All of them, or none.
func (c *Client) DataKeys(ctx context.Context, wrapped [][]byte, audience string) ([][KeySize]byte, error) {
	keys := make([][KeySize]byte, 0, len(wrapped))
	for i, w := range wrapped {
		plain, err := c.decrypt(ctx, w, audience)
		if err == nil && len(plain) != KeySize {
			err = fmt.Errorf("it holds %d bytes and needs %d: encrypt a data key (kms:GenerateDataKey with KeySpec AES_256)", len(plain), KeySize)
		}
		if err != nil {
			clear(keys)
			return nil, fmt.Errorf("decrypt key %d of %d: %w", i+1, len(wrapped), err)
		}
		keys = append(keys, [KeySize]byte(plain))
		clear(plain)
	}
	return keys, nil
}

// decrypt has KMS decrypt one ciphertext that was encrypted with a symmetric
// KMS key and the encryption context audience=<audience>. An error of KMS is an
// *Error (https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html).
func (c *Client) decrypt(ctx context.Context, ciphertext []byte, audience string) ([]byte, error) {
	body, _ := json.Marshal(struct { // bytes and texts can be encoded
		CiphertextBlob    []byte
		EncryptionContext map[string]string
	}{ciphertext, map[string]string{"audience": audience}})
	creds, err := c.o.Credentials(ctx)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make the request to KMS: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "TrentService.Decrypt")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(sum[:]), "kms", c.o.Region, time.Now()); err != nil {
		return nil, fmt.Errorf("sign the request to KMS: %w", err)
	}
	res, err := c.o.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reach KMS, which needs a way out of the VPC or a VPC endpoint: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read KMS's answer: %w", err)
	}
	defer clear(answer)
	var a struct {
		Plaintext []byte
		Type      string `json:"__type"`
	}
	err = json.Unmarshal(answer, &a)
	if res.StatusCode != http.StatusOK {
		return nil, &Error{Status: res.StatusCode, Code: code(a.Type, res.Header.Get("X-Amzn-Errortype")), Host: c.url.Host, Region: c.o.Region, Audience: audience}
	}
	if err != nil || len(a.Plaintext) == 0 {
		return nil, fmt.Errorf("%s is no KMS: its answer is not Decrypt's", c.url.Host)
	}
	return a.Plaintext, nil
}

// Error is a refusal of KMS.
type Error struct {
	Status       int
	Code         string // such as AccessDeniedException; empty: none was told
	Host, Region string // who was asked
	Audience     string // for whom
}

// Error says what to check.
func (e *Error) Error() string {
	s := fmt.Sprintf("KMS at %s answered %d", e.Host, e.Status)
	if e.Code != "" {
		s += " " + e.Code
	}
	if a := e.advice(); a != "" {
		s += ": " + a
	}
	return s
}

func (e *Error) advice() string {
	switch e.Code {
	case "AccessDeniedException":
		return "allow this function's role kms:Decrypt with the key, in its policy and in the key's, and look at their conditions on kms:EncryptionContext:audience"
	case "InvalidCiphertextException":
		return fmt.Sprintf("it is damaged, or was not encrypted with the encryption context audience=%s", e.Audience)
	case "NotFoundException", "IncorrectKeyException":
		return "the KMS key is not in the region " + e.Region
	case "DisabledException", "KMSInvalidStateException", "KeyUnavailableException":
		return "the KMS key is disabled, or about to be deleted"
	case "ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException", "IncompleteSignature", "SignatureDoesNotMatch":
		return "it does not accept the AWS credentials of this function, or the clock of this host is wrong"
	}
	return ""
}

// code is an error's name, of its type ("com.amazonaws.kms#NotFoundException")
// or of the header ("NotFoundException:http://..."). What does not look like a
// name is left out.
func code(typ, header string) string {
	if typ == "" {
		typ, _, _ = strings.Cut(header, ":")
	}
	typ = typ[strings.LastIndexByte(typ, '#')+1:]
	if len(typ) > 64 || strings.ContainsFunc(typ, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }) {
		return ""
	}
	return typ
}
