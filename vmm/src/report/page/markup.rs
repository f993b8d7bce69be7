//! HTML in the making. What is markup is a constant of the source; all other text is escaped, so that no name, line or number
//! that comes from outside becomes markup.

use std::fmt::{Display, Write};

/// Text of a page.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

impl Markup {
    /// Markup of ours.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, in content or in a quoted attribute.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        write!(Escape(&mut self.0), "{text}").expect("a string takes everything");
        self
    }

    /// A coordinate or length of a drawing.
    pub(super) fn length(&mut self, length: f64) -> &mut Self {
        let length = if length.is_finite() { length } else { 0.0 };
        write!(self.0, "{length:.2}").expect("a string takes everything");
        self
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// What is written here is escaped.
struct Escape<'a>(&'a mut String);

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            match character {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(character),
                // Shown as pictures: a page has no control characters.
                '\0'..='\x1f' => self.0.extend(char::from_u32(0x2400 + u32::from(character))),
                '\x7f' => self.0.push('\u{2421}'),
                '\u{80}'..='\u{9f}' => self.0.push(char::REPLACEMENT_CHARACTER),
                _ if turns_text_around(character) => self.0.push(char::REPLACEMENT_CHARACTER),
                _ => self.0.push(character),
            }
        }
        Ok(())
    }
}

/// Whether a character changes the order in which others are shown (Unicode Bidirectional Algorithm, 2): text from outside could
/// look like something else.
const fn turns_text_around(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut markup = Markup::default();
        markup.text(text);
        markup.finish()
    }

    #[test]
    fn text_from_outside_is_no_markup_in_content_and_attributes() {
        assert_eq!(
            escaped("<script>alert('&')</script>"),
            "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"
        );
        assert_eq!(escaped("\" onload=\""), "&quot; onload=&quot;");
        assert_eq!(escaped("]]>--><!--"), "]]&gt;--&gt;&lt;!--");
    }

    #[test]
    fn control_characters_are_shown_and_do_nothing() {
        assert_eq!(escaped("a\x1b[31mb\0\x7f\u{9b}c"), "a\u{241b}[31mb\u{2400}\u{2421}\u{fffd}c");
        assert_eq!(escaped("one\n\ttwo"), "one\n\ttwo");
        assert_eq!(escaped("gpj.\u{202e}exe\u{2066}"), "gpj.\u{fffd}exe\u{fffd}");
    }

    #[test]
    fn length_that_is_no_number_is_zero() {
        let mut markup = Markup::default();
        markup.length(f64::NAN).raw(" ").length(f64::INFINITY).raw(" ").length(1.239);
        assert_eq!(markup.finish(), "0.00 0.00 1.24");
    }
}
