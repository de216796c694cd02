/* Boxes that hold numbers. */
#include <stdio.h>
#define FORCE_INLINE inline
#define MAX_BOXES 8 /* in one room */
#define TWICE(x) (2 * (x))

/* Adds. */
static int add(int a, int b) { return a + b; }
int *find(void);
char **names(int *count) { return 0; }
int (*choose(int kind))(int) { return 0; }
BOX_API FORCE_INLINE int opened(void) { return 0; }
API(long) measured(void) BOX_PURE;
extern int box_debug; /* 1 = say what happens */
const char *const title = "boxes";
static int table[] = {1111111111, 1111111111, 1111111111, 1111111111, 1111111111, 1111111111, 1111111111, 1111111111};
int first, *second = 0;

/** A box. */
struct box {
  int n; /**< how many */
  unsigned is_open : 1; ///< whether it
                        ///< is open
  /** Called when it opens. */
  void (*opened)(struct box *box, void *data);
  union { int number; float real; };
  struct { int deep; } inner;
};
typedef struct node { int value; } node;
typedef struct { int x, y; } point, *point_ptr;
typedef struct tree_s { int leaves; } tree;
typedef int (*compare_fn)(const void *a, const void *b);
typedef unsigned long handle;
enum color { RED = 1, /* warm */ GREEN, BLUE };
enum { LIMIT = 1 << 4 };

static int
old(a, b)
  int a;
  char *b;
{ return a; }

void both(int x) {
#ifdef FAST
  if (x) {
#else
  while (x) {
#endif
    x--;
  }
}
#if 0
int unused(void) { return 1; }
#endif
int last(int x,
#ifdef WIDE
         int y,
#endif
         int z) { return add(x, TWICE(z)); }
TEST(boxes, opens) { opened(); }
