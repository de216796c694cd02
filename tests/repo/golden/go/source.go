// Package box holds things.
package box

// Limits.
const (
	// Least is the smallest.
	Least Size = 1 << iota
	Middle
	_
	Most // nobody needs more
	a, b = iota, "text"
)

const Version = "1.0"

var (
	// ErrFull says that a box is full.
	ErrFull = errors.New("full")
	table   = map[string]int{"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
)
var Handler = func(n int) error { return nil }

// Box is one.
type Box struct {
	// Name is written on it.
	Name string `json:"name"`
	X, Y int    // where it stands
	*Base
	io.Writer
	inner struct {
		Depth int
	}
}
type (
	// Putter puts.
	Putter interface {
		// Put adds a thing.
		Put(int) error
		io.Closer
	}
	Number interface{ ~int | ~float64 }
	Size   uint8
	Index  = map[string]*Box
	Pair[K comparable, V any] struct {
		Key K
	}
	hidden struct{ Seen int }
)

// Put adds.
func (b *Box) Put(n int) { b.n = add(n) }
func (p Pair[K, V]) Get() V { var v V; return v }
func (h *hidden) Run() {}
func Map[T, U any](x []T, f func(T) U) []U { return nil }
func add(n int) int {
	type local struct{ x int }
	return n
}
