package lambda

import "io"

func accompany(api string) int            { return 0 }
func probe(api string, out io.Writer) int { return 0 }
