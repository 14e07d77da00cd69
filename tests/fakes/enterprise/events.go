package enterprise

import "net/http"

type bus struct{}

func (b *bus) close() {}

func (c *Cluster) publish(r *http.Request, index uint64) {}

func (n *Node) subscribe(w http.ResponseWriter, r *http.Request, pattern string) {
	refuse(w, http.StatusNotFound, "unsupported path")
}
