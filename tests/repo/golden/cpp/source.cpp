namespace shop {
// A box.
class Box { public: void put(int n); int get() { return n_; } };
void Box::put(int n) { n_ = add(n); }
}
