#include "shop.h"
namespace shop {
// A box.
template <typename T>
class SHOP_API Box final : public Base, private detail::Lock<T> {
  int secret_;
public:
  explicit Box(int n) : n_(n) {}
  ~Box();
  Box(const Box &) = delete;
  void put(int n);
  int get() const { return n_; }
  virtual void fill() = 0;
  bool operator==(const Box &other) const;
  operator bool() const;
  template <class U> U as() const;
  static constexpr int kMost = 3;  ///< of all boxes
  using Value = T;
  enum class State { Open, Shut = 4 };
  friend bool operator<(const Box &a, const Box &b) { return a.n_ < b.n_; }
protected:
  int n_ = 0;
  struct Hidden { int depth; };
};
void Box::put(int n) { n_ = add(n); }
Box::~Box() {}
template <class T> T &Box<T>::top() { return first(); }
int Box::count = 0;
std::string &name() { return names(); }
auto make(int n) -> Box * { return new Box(n); }
template <> int clamp<int>(int v, int low) { return v; }
inline namespace v1 { struct Inner { void go() {} }; }
namespace { int hidden; }
static void local() {}
}
namespace a::b { constexpr double kPi = 3.14; }
template <class T> concept Small = sizeof(T) < 4;
using Alias = std::vector<int>;
extern "C" int plain(int);
__global__ void kernel(float *x) { scale<<<1, 2>>>(x); }
TEST(Boxes, Open) { make(1); }
