/** A box. */
public class Box {
    /** Makes. */
    public Box() { super(); }
    int put(int n) { return add(n); }
    enum Kind { A }
}
