import Foundation

/// A basket.
@objc public class Basket<T>: Container, Holder {
    /// The most things.
    public static let limit = 10
    private var spare: Int
    var count: Int { return spare }

    init(spare: Int) { self.spare = spare }
    deinit {}

    /// Puts.
    func put(_ thing: Int, into place: String = "a") -> Int {
        let local = Tools.add(thing)
        return add(local)
    }

    enum Colour: String { case red = "r", green }
}

struct Pair { let a: Int }

protocol Holder {
    func put(_ thing: Int) -> Int
    var count: Int { get }
}

extension Basket {
    func more() { spare.go() }
}

func helper(x: Int) -> Int { Basket(spare: 1).put(x) }
typealias Name = String
let most = 3
actor Worker {}
