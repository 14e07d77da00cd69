package tier

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"

	"github.com/thaw-project/thaw/extension/config"
)

// identity names the login in the shared tier: instances with equal names use
// each other's grants. It holds all that the configuration says of who logs
// in: the mount, and the role there, which an approle login knows by its role
// id only. A login by what the configuration does not tell, such as a file with
// a token, shares grants with nobody: it asks for its rights itself.
func identity(a config.Auth, namespace string) string {
	if a.Namespace != "" {
		namespace = a.Namespace
	}
	who := ""
	switch a.Method {
	case config.AuthAppRole:
		if who = a.RoleID; who == "" {
			text, err := os.ReadFile(a.RoleIDFile)
			if who = strings.TrimSpace(string(text)); err != nil || who == "" {
				who = rand.Text()
			}
		}
	case config.AuthToken:
		sum := sha256.Sum256([]byte(a.Token))
		who = hex.EncodeToString(sum[:])
	case config.AuthTokenFile:
		who = rand.Text()
	}
	return strings.Join([]string{string(a.Method), namespace, a.Mount, a.Role, a.AssumeRole, who}, "\x00")
}
