// Package box holds things.
package box

// Box is one.
type Box struct { n int }
type Putter interface { Put(int) }

// Put adds.
func (b *Box) Put(n int) { b.n = add(n) }
func add(n int) int { return n }
