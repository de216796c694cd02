//! A crate.

/// The most things.
pub const LIMIT: usize = 3;
pub(crate) static mut NAMES: [&str; 8] = ["one", "two", "three", "four", "five", "six", "seven", "eight"];
/// A size.
pub type Size = Vec<u8>;

/// A box.
#[derive(Debug)]
#[cfg(
    feature = "box"
)]
pub struct Box<T> where T: Copy {
    /// How many.
    pub n: i32,
    label: String, // what is written on it
}
pub struct Pair(pub u8, String);
impl<T> Box<T> {
    /// The least.
    pub const LEAST: i32 = 1;
    /// Puts.
    pub fn put(&mut self, n: i32) -> Vec<u8> { const LOCAL: u8 = 1; fn inner() {} self.n = add(n) }
    fn check(&self) {}
}
impl<T> fmt::Display for Box<T> { fn fmt(&self) {} }
impl<'a> Putter for &'a crate::Box<u8> {
    type Out = u8;
    fn put(&self) {}
}
impl Putter for [u8; 3] { fn put(&self) {} }

/// Puts things.
pub trait Putter: Send + 'static {
    /// What comes out.
    type Out: Copy;
    const N: u8 = 1;
    fn put(&self);
    fn twice(&self) {}
}

pub enum Shape {
    /// A round one.
    Round(u8),
    Square { side: u8 },
    Last = 3, // of all
}
union Either { a: u8 }

/** Block comment. */
pub fn block() {}
#[doc = "From an attribute."]
#[inline]
pub fn attribute() {}
#[macro_export]
macro_rules! boxes { () => {}; }
extern "C" { pub fn outside(n: i32) -> i32; }
mod tests {
    //! The tests.
    pub struct Inner;
    impl Inner { pub fn go() {} }
}
fn add(n: i32) -> i32 { n }
