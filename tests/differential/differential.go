// Package differential asks the same of an origin directly and through thaw, in
// lockstep, while something in front of the origin answers in its place now and
// then: load balancers, proxies, gateways and login pages, whose answers are
// not Vault's. Whatever they say, nobody may ever read through thaw what Vault
// did not answer, and what thaw has may not be lost by it: only Vault's word
// counts.
//
// Time is simulated (testing/synctest), connections are pipes, and the origin is
// tests/standin. A run is a function of its seed.
//
//	go test ./tests/differential -requests 20000
//	go test ./tests/differential -seed 7 -v
//	go test ./tests/differential -run Real -real 20000
//	go test ./tests/differential -run Policy -pairs 2000
//	go test ./tests/differential -run ColdStarts -starts 1000 -v
package differential
