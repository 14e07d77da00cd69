// Package consistency tests, on simulated time, that an identity's reads see
// what it wrote: whole instances of thaw before a Vault Enterprise whose
// standbys lag (tests/standin), connected by pipes.
//
//	go test ./tests/consistency -pairs 10000
//
// does as many writes, each followed by a read, in each test.
package consistency
