#include <stdio.h>
/* Adds. */
static int add(int a, int b) { return a + b; }
int *find(void);
struct box { int n; };
#define TWICE(x) (2 * (x))
int main(void) { return add(1, TWICE(2)); }
