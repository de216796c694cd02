"""Each markup as its community writes it, and what the page shows of it."""

from __future__ import annotations

import time
from textwrap import dedent

import pytest

from rotary_batch.pages.authored.blocks import Paragraph
from rotary_batch.pages.authored.reading import MAX_CHARACTERS, authored_summary, read_authored
from rotary_batch.pages.authored.render import to_markdown
from rotary_batch.pages.sanitise import inline


def shown(text: str, language: str | None) -> str:
    words = read_authored(dedent(text).strip(), language)
    return "\n\n".join(filter(None, [inline(words.summary), *to_markdown(words.blocks)]))


CODE = "for x in y:\n    # not a heading\n    print(x)  * 2\n\n\tend"

# language, comment, page
CASES = {
    "markdown in rust": (
        "rust",
        """
        Opens a [`Door`] or a [window](crate::Window).

        # Errors

        * one `x`
        * two

          more

        | a | b |
        |---|--:|
        | 1 | `c` |

        ```
        # use shop::Door;
        #[test]
        let d = Door::new(); // # kept
        ## shown
        #
        d.open();
        ```

        ```text
        # kept
        ```

        [`Door`]: crate::Door
        """,
        """
        Opens a `Door` or a window.

        **Errors**

        -   one `x`

        -   two

            more

        | a | b |
        | --- | --- |
        | 1 | `c` |

        ```rust
        #[test]
        let d = Door::new(); // # kept
        # shown
        d.open();
        ```

        ```text
        # kept
        ```
        """,
    ),
    "google in python": (
        "python",
        """
        Sells things.

        Longer *text* with ``code``.

        Args:
            name (str): What to sell.
                Goes on.
            *rest: The others:

                - one
                - two

        Returns:
            dict[str, int]: Prices by name.

        Raises:
            KeyError: When there is none.

        Note:
            Mind the shop.

        Example:
            >>> sell("a")
            {'a': 1}
        """,
        """
        Sells things.

        Longer text with `code`.

        | Parameter | Type | Description |
        | --- | --- | --- |
        | `name` | `str` | What to sell. Goes on. |
        | `*rest` |  | The others: |

        `*rest`:

        -   one
        -   two

        | Returns | Description |
        | --- | --- |
        | `dict[str, int]` | Prices by name. |

        | Raises | Description |
        | --- | --- |
        | `KeyError` | When there is none. |

        > **Note.** Mind the shop.

        **Example**

        ```pycon
        >>> sell("a")
        {'a': 1}
        ```
        """,
    ),
    "numpy in python": (
        "python",
        """
        Weigh a shop.

        .. deprecated:: 2.1
            Use :func:`~shop.scale`.

        Parameters
        ----------
        a, b : array_like, optional
            The :class:`.Shop`.

        See Also
        --------
        scale : Does it
            better.
        other
        """,
        """
        Weigh a shop.

        > **Deprecated.** Since 2.1: Use `scale`.

        | Parameter | Type | Description |
        | --- | --- | --- |
        | `a` | `array_like` | The `Shop`. |
        | `b` | `array_like` | The `Shop`. |

        **See also**

        -   `scale`: Does it better.
        -   `other`
        """,
    ),
    "rest in python": (
        "python",
        """
        Close the shop, see `the manual <https://shop.example>`_.

        .. warning:: It stays closed.

        .. raw:: html

            <script>x</script>

        * one
        * two

        Like this::

            close()
              now()

        ====  ====
        a     b
        ====  ====
        1     2
        ====  ====

        :param int when: the hour
        :param force: or
            else
        :type force: bool
        :returns: nothing
        :raises ShopError: always
        """,
        """
        Close the shop, see the manual.

        > **Warning.** It stays closed.

        ```text
        .. raw:: html

            <script>x</script>
        ```

        -   one
        -   two

        Like this:

        ```text
        close()
          now()
        ```

        | a | b |
        | --- | --- |
        | 1 | 2 |

        | Parameter | Type | Description |
        | --- | --- | --- |
        | `when` | `int` | the hour |
        | `force` | `bool` | or else |

        | Returns |
        | --- |
        | nothing |

        | Raises | Description |
        | --- | --- |
        | `ShopError` | always |
        """,
    ),
    "jsdoc": (
        "javascript",
        """
        Opens {@link Shop#door the door} with `key`.

        @param {{a: number}} [options={}] - How to.
        @param {string} options.key The key
        @returns {Promise<void>} when open
        @throws {ShopError} When shut.
        @deprecated Use {@link push}.
        @example <caption>Try it</caption>
        @decorated
        open('x') // {@link y}
        @private
        @see other
        """,
        """
        Opens the door with `key`.

        > **Deprecated.** Use `push`.

        | Parameter | Type | Description |
        | --- | --- | --- |
        | `options` | `{a: number} = {}` | How to. |
        | `options.key` | `string` | The key |

        | Returns | Description |
        | --- | --- |
        | `Promise<void>` | when open |

        | Throws | Description |
        | --- | --- |
        | `ShopError` | When shut. |

        **Example**

        Try it

        ```javascript
        @decorated
        open('x') // {@link y}
        ```

        See also: other
        """,
    ),
    "javadoc": (
        "java",
        """
        Sells {@code List<Thing>} &amp; more, see {@link Shop#sell(int) here}.
        <p>Then:
        <ul>
          <li>one
          <li>two <b>bold</b>
        </ul>
        <pre>{@code
          if (a < b) {
            sell();
          }
        }</pre>
        @param <T> the kind
        @param count how many
        @return nothing
        @throws ShopException when shut
        """,
        """
        Sells `List<Thing>` &amp; more, see `here`.

        Then:

        -   one
        -   two bold

        ```text
          if (a < b) {
            sell();
          }
        ```

        | Type parameter | Description |
        | --- | --- |
        | `<T>` | the kind |

        | Parameter | Description |
        | --- | --- |
        | `count` | how many |

        | Returns |
        | --- |
        | nothing |

        | Throws | Description |
        | --- | --- |
        | `ShopException` | when shut |
        """,
    ),
    "doxygen": (
        "c",
        r"""
        @brief Sell a \c thing.

        Writes "a\n" to the log.

        \param[in] n how many
        @return 0, or -1
        @retval -1 when shut
        @note Not yet.
        @code{.c}
        sell(2); /* \param */
        @endcode
        """,
        r"""
        Sell a `thing`.

        Writes "a\\n" to the log.

        | Parameter | Description |
        | --- | --- |
        | `n` | how many |

        | Returns | Description |
        | --- | --- |
        |  | 0, or -1 |
        | `-1` | when shut |

        > **Note.** Not yet.

        ```c
        sell(2); /* \param */
        ```
        """,
    ),
    "go": (
        "go",
        """
        Sell sells a [Thing], or a[i].

        # Prices

        They are:
          - high
          - higher
            still

        Like this:

        \tsell("x") // - no item
        \t  if x

        Deprecated: use [shop.Buy] instead.

        [Thing]: https://shop.example
        """,
        """
        Sell sells a `Thing`, or a\\[i\\].

        > **Deprecated.** use `shop.Buy` instead.

        **Prices**

        They are:

        -   high
        -   higher still

        Like this:

        ```go
        sell("x") // - no item
          if x
        ```
        """,
    ),
    "php": (
        "php",
        """
        Sells.

        @param string|null $name What
        @param int ...$more
        @return bool whether
        @throws ShopException
        """,
        """
        Sells.

        | Parameter | Type | Description |
        | --- | --- | --- |
        | `$name` | `string\\|null` | What |
        | `...$more` | `int` |  |

        | Returns | Description |
        | --- | --- |
        | `bool` | whether |

        | Throws |
        | --- |
        | `ShopException` |
        """,
    ),
    "yard": (
        "ruby",
        """
        Sells.

        @param name [String] what
        @return [Boolean] whether
        """,
        """
        Sells.

        | Parameter | Type | Description |
        | --- | --- | --- |
        | `name` | `String` | what |

        | Returns | Description |
        | --- | --- |
        | `Boolean` | whether |
        """,
    ),
    "xml in c sharp": (
        "c_sharp",
        """
        <summary>
        Sells a <see cref="T:Shop.Thing"/> if <paramref name="n"/> is <c>true</c>.
        </summary>
        <param name="n">How <em>many</em>.</param>
        <returns>Nothing.</returns>
        <exception cref="ShopException">When shut.</exception>
        """,
        """
        Sells a `Shop.Thing` if `n` is `true`.

        | Parameter | Description |
        | --- | --- |
        | `n` | How many. |

        | Returns |
        | --- |
        | Nothing. |

        | Throws | Description |
        | --- | --- |
        | `ShopException` | When shut. |
        """,
    ),
    "swift": (
        "swift",
        """
        Sells.

        - Parameters:
          - n: How many.
          - m: More.
        - Returns: Nothing.
        - Throws: `ShopError`.
        """,
        """
        Sells.

        | Parameter | Description |
        | --- | --- |
        | `n` | How many. |
        | `m` | More. |

        | Returns |
        | --- |
        | Nothing. |

        | Throws |
        | --- |
        | `ShopError`. |
        """,
    ),
    "kdoc": (
        "kotlin",
        """
        Sells a [Thing] for [price][Price].

        @param n how *many*
        @property x the `x`
        """,
        """
        Sells a `Thing` for price.

        | Parameter | Description |
        | --- | --- |
        | `n` | how many |

        | Property | Description |
        | --- | --- |
        | `x` | the `x` |
        """,
    ),
    "plain": (
        "bash",
        """
        Sell things
        at night.

        Usage:   sell THING
                 sell ALL

        1) one
        2) two
           goes on

            indented
              code
        """,
        """
        Sell things at night.

        ```text
        Usage:   sell THING
                 sell ALL
        ```

        1.  one
        2.  two goes on

        ```text
        indented
          code
        ```
        """,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_comment_is_shown_as_it_was_meant(case):
    language, text, page = CASES[case]
    assert shown(text, language) == dedent(page).strip()


@pytest.mark.parametrize(
    ("language", "text", "summary"),
    [
        ("python", "Sell `it` and ``that``.\n\nMore.", "Sell `it` and `that`."),
        ("python", "shop\n====\n\nSells things.", "Sells things."),
        ("python", "Shops of the town\n=================\n\nSells.", "Shops of the town"),
        ("python", ".. deprecated:: 1\n\nSell :class:`~a.B`.", "Sell `B`."),
        ("python", "Sell :meth:`.Shop.sell` of :file:`.shop`.", "Sell `Shop.sell` of `.shop`."),
        ("python", "Args:\n    x: y", ""),
        ("python", "float: Seconds of the sale.", "Seconds of the sale."),
        ("python", "Optional[list[int]]: Prices, if there are any.\n\nMore.", "Prices, if there are any."),
        ("python", "int: what is sold", "int: what is sold"),
        ("python", "Note: Sells at night.", "Note: Sells at night."),
        ("javascript", "float: Seconds of the sale.", "float: Seconds of the sale."),
        ("rust", "# shop\n\nSells <T> for [`Price`].", "Sells <T> for `Price`."),
        ("java", "Sells {@code a<b>}.\n<p>More", "Sells `a<b>`."),
        ("java", "@return the thing", ""),
        ("typescript", "Port to use. @default 80", "Port to use."),
        ("typescript", "Mail me@shop.example now.", "Mail me@shop.example now."),
        ("javascript", "@file Sells things.\n@author Me", "Sells things."),
        ("c", "\\brief Sell.\n\\param x y", "Sell."),
        ("go", "Sell sells\nthings. It does.", "Sell sells things. It does."),
        (None, "- one\n- two", ""),
    ],
)
def test_a_summary_is_free_of_markup(language, text, summary):
    assert authored_summary(text, language) == summary == read_authored(text, language).summary


PIECES = [
    *("[", "![a](", "<a ", "> ", "- ", "{@code ", "<ul>", "`a ``b ", "a: b\n  c: d\n", "Args:\n  x: y\n\n", "@param {"),
    *("x\n  y\n", ":a: b\n", "|a|\n|-|\n", "- a\n  - b\n"),
]


@pytest.mark.parametrize("language", ["python", "rust", "java", "javascript", "go", "c", "c_sharp"])
def test_no_comment_takes_long(language):
    """The longest text that a parser is given; a quadratic parser needs minutes for one of them."""
    for piece in PIECES:
        text = piece * ((MAX_CHARACTERS - 1) // len(piece))
        began = time.process_time()
        to_markdown(read_authored(text, language).blocks)
        authored_summary(text, language)
        assert time.process_time() - began < 40, piece


def test_a_comment_of_a_megabyte_is_plain_text():
    for piece in PIECES:
        began = time.process_time()
        assert to_markdown([Paragraph(read_authored(piece * (1_000_000 // len(piece)), "python").summary or "x")])
        assert time.process_time() - began < 40, piece


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("rust", "> " * 10_000 + "deep"),
        ("rust", "\n".join("  " * n + "- deep" for n in range(500))),
        ("python", "\n".join(" " * n + "* deep" for n in range(500)) + "\n"),
        ("python", "* " * 500 + "deep"),
        ("java", "<ul><li>" * 5_000 + "deep"),
        ("swift", "- " * 10_000 + "deep"),
    ],
)
def test_nesting_of_any_depth_is_shown_as_text(language, text):
    assert "deep" in shown(text, language)
