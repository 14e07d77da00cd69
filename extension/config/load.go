package config

import (
	"os"
	"strings"
)

// Source is where the configuration comes from.
type Source struct {
	Environ    []string                     // os.Environ(); of a name given twice the first counts, as for os.Getenv
	ReadFile   func(string) ([]byte, error) // reads the configuration file; nil: os.ReadFile
	ConfigFile string                       // -config; empty: THAW_CONFIG
	Azure      *AzureSupport                // ForAzure() in thaw-azure; nil in others, which refuse what is for Azure
	NoListener bool                         // the program serves nothing: listeners are left out, and no address points back at one
}

// Load reads everything the process was told. Its warnings are for one WARN
// line each.
//
// The error, if any, is a *Problems with everything that is wrong. The Config
// that comes with it is fit for its Platform and LogLevel only, so that the
// process can report the error where it runs.
func Load(src Source) (Config, []Warning, error) {
	l := &loader{
		rows:  table(src.Azure),
		mute:  src.NoListener,
		azure: src.Azure,
		env:   make(map[string]string, len(src.Environ)),
		bad:   make(map[string]bool),
	}
	l.readEnviron(src.Environ)

	l.d.StaticCache, l.d.OwnToken = true, OwnTokenFill
	for i := range l.rows {
		if row := &l.rows[i]; row.Default != "" {
			l.apply(row, place{name: row.Name}, row.Default)
		}
	}
	if path := l.configFile(src.ConfigFile); path != "" {
		read := src.ReadFile
		if read == nil {
			read = os.ReadFile
		}
		l.readFile(path, read)
	}
	for i := range l.rows {
		row := &l.rows[i]
		if value := l.env[row.Name]; value != "" {
			l.apply(row, place{name: row.Name}, value)
		}
	}
	l.refuseAzure()
	l.checkNames()

	l.resolvePlatform()
	l.resolveListeners()
	l.resolveOrigin()
	l.resolveProxy()
	if l.azure != nil {
		l.azure.resolve(l)
	}
	l.resolveAuth()
	l.resolveFiles()
	l.resolveShared()
	l.check()

	if len(l.problems) > 0 {
		return l.d.Config, l.warnings, &Problems{list: l.problems}
	}
	return l.d.Config, l.warnings, nil
}

// loader is one run of Load.
type loader struct {
	rows     []setting
	mute     bool              // see Source.NoListener
	azure    *AzureSupport     // see Source.Azure
	env      map[string]string // trimmed; without empty ones
	names    []string          // of the environment, in order, empty ones too
	d        draft
	file     file
	problems []error
	warnings []Warning
	bad      map[string]bool // names of settings and keys that were refused
}

// place says where a value stands.
type place struct {
	name string // as the user knows it
	file string
	line int
}

func (l *loader) readEnviron(environ []string) {
	for _, entry := range environ {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			continue
		}
		if _, seen := l.env[name]; seen {
			continue
		}
		l.names = append(l.names, name)
		l.env[name] = strings.TrimSpace(value)
	}
}

// configFile gives the path of the file to read, or "".
func (l *loader) configFile(given string) string {
	if given != "" {
		return given
	}
	return l.env["THAW_CONFIG"]
}

// isSet reports whether the environment has name.
func (l *loader) isSet(name string) bool { return l.env[name] != "" }

// firstSet gives the first of names that the environment has, or "".
func (l *loader) firstSet(names ...string) string {
	for _, name := range names {
		if l.isSet(name) {
			return name
		}
	}
	return ""
}

// row finds a setting by name; nil: there is none.
func (l *loader) row(name string) *setting {
	for i := range l.rows {
		if l.rows[i].Name == name {
			return &l.rows[i]
		}
	}
	return nil
}

// apply parses value into the draft, and reports what the row refuses.
func (l *loader) apply(row *setting, at place, value string) bool {
	if err := row.parse(&l.d, value); err != nil {
		message := err.Error() + "; allowed: " + row.allowed()
		if row.Secret {
			value = ""
		}
		l.refuse(at, value, message)
		return false
	}
	return true
}

// refuse records a problem with the value that stands at a place. The value is
// shown where it may be.
func (l *loader) refuse(at place, value, message string) {
	l.bad[at.name] = true
	l.problem(&Problem{Name: at.name, File: at.file, Line: at.line, Value: shown(value), Message: message})
}

func (l *loader) problem(p *Problem) { l.problems = append(l.problems, p) }

func (l *loader) warn(message string) {
	l.warnings = append(l.warnings, Warning{Message: message})
}
