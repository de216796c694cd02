//! A crate.

/// A box.
#[derive(Debug)]
struct Box { n: i32 }
impl Box {
    /// Puts.
    fn put(&mut self, n: i32) { self.n = add(n); }
}
trait Putter { fn put(&self); }
fn add(n: i32) -> i32 { n }
