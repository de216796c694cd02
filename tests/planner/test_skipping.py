"""Which symbols a model is not asked about."""

from __future__ import annotations

import pytest

from rotary_batch.planner.skipping import is_trivial, wants_answer
from rotary_batch.repo.symbols import extract, parse

# In each language: what needs no words, and what does, by name.
CASES = {
    "python": (
        '''
class Cart:
    """Words of the author."""

    def __init__(self, goods, owner=None):
        self.goods = goods
        self._owner = owner

    def __repr__(self):
        parts = [repr(one) for one in self.goods]
        return f"Cart({', '.join(parts)})"

    @property
    def owner(self) -> "Person | None":
        # who pays
        return self._owner

    @owner.setter
    def owner(self, owner):
        self._owner = owner

    def goods_of(self, shop: Dict[str, int] = {}):
        return self.store.goods_of(shop, owner=self._owner)

    def lines(self):
        return [one.line for one in self.goods if one.count]

    def total(self, tax):
        price = sum(one.price for one in self.goods)
        return price * (1 + tax)

    def __call__(self, goods):
        for one in goods:
            self.add(one)


class CartError(ValueError):
    pass


class Told(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.text = text
        register(self, text)


def later():
    raise NotImplementedError


async def fetch(url): return await get(url)


def scaled(x):
    return x * 2
''',
        {"Cart.__init__", "Cart.__repr__", "Cart.owner", "Cart.goods_of", "CartError", "later", "fetch"},
        {"Cart.lines", "Cart.total", "Cart.__call__", "Told.__init__", "scaled", "Told"},
    ),
    "javascript": (
        """
class Cart {
  constructor(goods) { this.goods = goods; this.count = 0; }
  get size() { return this.goods.size; }
  set size(size) { this._size = size; }
  toString() { const parts = this.goods.map((one) => one.name); return parts.join(", "); }
  add(one) { this.goods.push(one); }
  total(tax) { return this.goods.reduce((sum, one) => sum + one.price, 0) * tax; }
}
const identity = (x) => x;
const doubled = (x) => x * 2;
function noop() { /* nothing */ }
function load(path) { return read(path, { encoding: "utf8" }).trim(); }
""",
        {"Cart.constructor", "Cart.size", "Cart.toString", "Cart.add", "identity", "noop"},
        {"Cart.total", "Cart", "doubled", "load"},
    ),
    "go": (
        """package cart

func (c *Cart) Owner() string { return c.owner }

func (c *Cart) String() string {
	return fmt.Sprintf("%d goods", len(c.goods))
}

func (c *Cart) SetOwner(owner string) {
	c.owner = owner // who pays
}

func (c *Cart) Close() error {
	return c.file.Close()
}

func Total(goods []Good) (sum int) {
	for _, one := range goods {
		sum += one.Price
	}
	return
}
""",
        {"Cart.Owner", "Cart.String", "Cart.SetOwner", "Cart.Close"},
        {"Total"},
    ),
    "rust": (
        """
impl Cart {
    pub fn owner(&self) -> &str { &self.owner }
    pub fn len(&self) -> usize { self.goods.len() }
    pub fn is_large(&self) -> bool { self.goods.len() > 100 }
    pub fn later(&self) { todo!() }
}
impl fmt::Display for Cart {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.owner)?;
        Ok(())
    }
}
""",
        {"Cart.owner", "Cart.len", "Cart.later", "Cart.fmt"},
        {"Cart.is_large"},
    ),
    "java": (
        """
class Cart {
  Cart(List<Good> goods) { this.goods = goods; }
  String getOwner() { return owner; }
  void setOwner(String owner) { this.owner = owner; }
  @Override public int hashCode() { int sum = 0; for (Good one : goods) { sum += one.id; } return sum; }
  int total() { int sum = 0; for (Good one : goods) { sum += one.price; } return sum; }
  boolean isEmpty() { return goods == null || goods.isEmpty(); }
}
""",
        {"Cart.Cart", "Cart.getOwner", "Cart.setOwner", "Cart.hashCode"},
        {"Cart.total", "Cart.isEmpty", "Cart"},
    ),
    "ruby": (
        """
class Cart
  def initialize(goods)
    @goods = goods
    @count = 0
  end

  def owner
    @owner
  end

  def to_s
    "#{owner}: #{@goods.map(&:name)}"
  end

  def total
    @goods.sum { |one| one.price }
  end
end
""",
        {"Cart.initialize", "Cart.owner", "Cart.to_s"},
        {"Cart.total", "Cart"},
    ),
    "c": (
        """
int cart_size(const struct cart *c) { return c->size; }
void cart_close(struct cart *c)
{
	free(c);
}
int cart_total(const struct cart *c)
{
	int sum = 0;
	for (int i = 0; i < c->size; i++)
		sum += c->goods[i].price;
	return sum;
}
""",
        {"cart_size", "cart_close"},
        {"cart_total"},
    ),
    "kotlin": (
        """
class Cart(val goods: List<Good>) {
    fun owner() = owner
    fun size(): Int = goods.size
    fun total(): Int = goods.sumOf { it.price }
    override fun toString(): String { return "Cart of ${goods.size}" }
}
""",
        {"Cart.owner", "Cart.size", "Cart.toString"},
        {"Cart.total", "Cart"},
    ),
}


@pytest.mark.parametrize("language", CASES)
def test_what_needs_no_words_is_told_by_name_and_body(language):
    text, trivial, told = CASES[language]
    source = text.encode()
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for one in extract(language, source, f"cart.{language}", parse(language, source)).symbols:
        if wants_answer(one, "", language, ()) and one.qualified_name in trivial | told:
            code = source[one.start_byte : one.end_byte].decode()
            found[is_trivial(one, code, language)].add(one.qualified_name)
    assert found == {True: trivial, False: told}


def test_a_job_names_what_is_skipped_and_data_never_wants_words():
    source = b'LIMIT = 3\n\ndef f(x):\n    """Add one."""\n    return x\n\n\ndef g(x):\n    return x\n\n\ndef h(x):\n    # ---\n    y = x * 2\n    return y\n'
    symbols = extract("python", source, "a.py", parse("python", source)).symbols
    texts = {one.name: source[one.start_byte : one.end_byte].decode() for one in symbols}

    def asked(*skip: str) -> list[str]:
        return [one.name for one in symbols if wants_answer(one, texts[one.name], "python", skip)]

    assert asked() == ["f", "g", "h"]
    assert asked("documented") == ["g", "h"]
    assert asked("trivial") == ["h"]
    assert asked("trivial", "documented") == ["h"]


def test_a_long_or_broken_text_takes_no_time_and_is_not_trivial():
    """Each of these would take for ever with a regular expression that tries all ways to cut it."""
    source = b"def f(x):\n    return x\n"
    (symbol,) = extract("python", source, "a.py", parse("python", source)).symbols
    for text in ("def f(" * 300, "def f(x):\n    return " + "a." * 490, "def f(x):\n    g(" + "a, " * 300, "{" * 999):
        for language in ("python", "go", "ruby", "lua", None):
            is_trivial(symbol, text, language)
    assert not is_trivial(symbol, "def f(x):\n    return x  # " + "a" * 1000, "python")
