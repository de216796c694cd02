/** A box. */
@Deprecated
@Named("box")
public sealed class Box<T> extends Base<T> implements Closeable, Iterable<T> permits Crate {
    /** The most things. */
    public static final int LIMIT = 3, LEAST = 1;
    protected int size; // how many
    private final Runnable task = new Runnable() { int n; public void run() {} };
    String[] names = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine"};
    /** Makes. */
    public Box() { super(); }
    /** Puts. */
    @Override public <U> int put(@Nonnull int n) { class Local { int x; } return add(n); }
    int put(String text) { return 0; }
    /** A kind. */
    public enum Kind implements Named {
        /** The first. */
        A(1) { void go() {} },
        @Old B;
        private final int n = 0;
        Kind(int... n) {}
    }
}
interface Shelf {
    String NAME = "shelf";
    void add(Box<?> box) throws IOException;
    default int size() { return 0; }
    record Place(@Nonnull int x, int... rest) { Place { } static Place of() { return null; } }
}
@interface Named {
    /** The name. */
    String value() default "";
    int MOST = 3;
}
