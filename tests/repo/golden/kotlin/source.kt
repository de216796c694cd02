package shop.core

import shop.models.User as Person

/** A basket. */
@Serializable
data class Basket<T>(val size: Int, private var spare: Int = 1, plain: String) : Container(size), Holder {
    companion object {
        /** The most things. */
        const val LIMIT = 10
    }

    /** How many. */
    val count: Int get() = size
    private val hidden = 3

    constructor(label: String) : this(1, 2, label)

    /** Puts. */
    @Deprecated("use add")
    override fun put(thing: Int): Int {
        val local = Tools.add(thing)
        return add(local)
    }

    inner class Inside

    enum class Colour(val code: Int) { RED(1), GREEN(2) }
}

sealed interface Holder {
    fun put(thing: Int): Int
}

object Single {
    fun go() {}
}

fun helper(x: Int) = Basket("a").put(x)
fun String.extended(): Int = 1
typealias Name = String
const val MOST = 3
