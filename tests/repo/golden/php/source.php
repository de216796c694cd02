<?php
/**
 * Baskets.
 */

namespace Shop\Core;

use Shop\Models\User as Person;

/** A basket. */
#[Entity]
abstract class Basket extends Container implements Holder, Countable
{
    use Counted;

    /** The most things. */
    public const LIMIT = 10;
    private ?int $count = 1, $spare = 2;

    public function __construct(private int $id, public readonly string $label = 'x')
    {
        parent::__construct();
    }

    /** Makes one. */
    public static function make(int $n): static
    {
        $local = helper($n);
        return new static($n, self::name($n), $local->put(1));
    }

    protected function hidden() {}
}

interface Holder { public function put(int $thing): void; }
trait Counted { function count() { return 1; } }
enum Colour: string { case Red = 'r'; case Green = 'g'; }

// Helps.
function helper(array $x) { return strlen($x); }
const LIMIT = 3;
