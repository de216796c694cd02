package shop.core

import shop.models.{User => Person, Order}
import shop.tools.Tools

/** A basket. */
@deprecated
case class Basket[T](size: Int, private val spare: Int = 1) extends Container(size) with Holder {
  /** How many. */
  val count: Int = size
  private var hidden = 3
  /** Puts. */
  def put(thing: Int): Int = {
    val local = Tools.add(thing)
    add(local)
  }
  type Alias = Int
}

trait Holder { def put(thing: Int): Int }
object Single { def go() = new Basket(1); val Most = 1 }
enum Colour { case Red, Green }
def helper(x: Int) = x.foo()
type Name = String
