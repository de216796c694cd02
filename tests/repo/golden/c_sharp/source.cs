// Licence of nobody.

using System;
using Shop.Models;

namespace Shop.Core
{
    /// <summary>A basket of things.</summary>
    [Serializable]
    public class Basket<T> : Container, IHolder<T>
    {
        /// <summary>The most things.</summary>
        public const int Limit = 10;
        private int count, spare;
        public string Label { get; set; } = "none";
        public event EventHandler Emptied;

        // Makes one.
        public Basket(int count) { this.count = count; }
        ~Basket() { Free(); }
        public static Basket<T> operator +(Basket<T> a, Basket<T> b) => a;
        public int this[int index] => index;

        /// <summary>Puts.</summary>
        [Obsolete("use Add"), Pure]
        public int Put(int thing) { int local = 1; return Tools.Add(thing); }
        private void Hidden() { new Other(); }

        public enum Colour { Red = 1, Green }
        public delegate void Handler(int x);
    }

    public record Point(int X, int Y);
    public struct Pair { public int A; internal int B; }
    interface IHolder<T> { int Put(int thing); }
}
