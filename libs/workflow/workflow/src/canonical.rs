//! JSON in its one canonical form (RFC 8785), and as Python's `json.dumps(…, sort_keys=True)` writes it: what keys
//! and digests are made of.
//!
//! Whole numbers beyond 2^53, which the RFC leaves to strings, keep all their digits here: two seeds that differ in
//! the last digit must not have the same key.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Number, Value};

/// The canonical form: no spaces, members ordered by the UTF-16 code units of their names, numbers as ECMAScript
/// writes them.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    write_canonical(&mut text, value);
    text
}

/// Appends the canonical form.
pub(crate) fn write_canonical(text: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => text.extend_from_slice(b"null"),
        Value::Bool(true) => text.extend_from_slice(b"true"),
        Value::Bool(false) => text.extend_from_slice(b"false"),
        Value::Number(number) => write_number(text, number, ecmascript_float),
        Value::String(string) => write_string(text, string),
        Value::Array(elements) => {
            write_all(text, *b"[]", b",", elements, write_canonical);
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|(one, _), (other, _)| utf16_order(one, other));
            write_all(text, *b"{}", b",", members, |text, (name, value)| {
                write_string(text, name);
                text.push(b':');
                write_canonical(text, value);
            });
        }
    }
}

/// Appends what Python's `json.dumps(value, sort_keys=True)` answers: a space after each comma and colon, names in
/// the order of code points, everything that is not printable ASCII escaped.
pub(crate) fn write_python(text: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => write_number(text, number, python_float),
        Value::String(string) => write_ascii_string(text, string),
        Value::Array(elements) => write_all(text, *b"[]", b", ", elements, write_python),
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            write_all(text, *b"{}", b", ", members, |text, (name, value)| {
                write_ascii_string(text, name);
                text.extend_from_slice(b": ");
                write_python(text, value);
            });
        }
        Value::Null | Value::Bool(_) => write_canonical(text, value),
    }
}

fn write_all<T>(
    text: &mut Vec<u8>,
    brackets: [u8; 2],
    between: &[u8],
    elements: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    text.push(brackets[0]);
    for (position, element) in elements.into_iter().enumerate() {
        if position > 0 {
            text.extend_from_slice(between);
        }
        write(text, element);
    }
    text.push(brackets[1]);
}

fn utf16_order(one: &str, other: &str) -> Ordering {
    if one.is_ascii() && other.is_ascii() {
        return one.cmp(other);
    }
    one.encode_utf16().cmp(other.encode_utf16())
}

/// The shortest escapes and lower-case hex, as the RFC wants and `serde_json` writes.
pub(crate) fn write_string(text: &mut Vec<u8>, string: &str) {
    serde_json::to_writer(text, string).expect("a string can be written to memory");
}

fn write_ascii_string(text: &mut Vec<u8>, string: &str) {
    let mut plain = Vec::with_capacity(string.len() + 2);
    write_string(&mut plain, string);
    let plain = String::from_utf8(plain).expect("JSON of text is text");
    for character in plain.chars() {
        if matches!(character, ' '..='~') {
            text.push(character as u8);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(text, "\\u{unit:04x}").expect("memory can be written");
            }
        }
    }
}

fn write_number(text: &mut Vec<u8>, number: &Number, write_float: fn(f64) -> String) {
    let written = match (number.as_u64(), number.as_i64(), number.as_f64()) {
        (Some(whole), _, _) => write!(text, "{whole}"),
        (_, Some(whole), _) => write!(text, "{whole}"),
        (_, _, Some(float)) => write!(text, "{}", write_float(float)),
        // Only numbers of arbitrary precision could be none of these, and they are not compiled in.
        _ => write!(text, "{number}"),
    };
    written.expect("memory can be written");
}

/// The fewest digits that name this number, and the place of the decimal point behind the first `point` of them.
struct Decimal {
    negative: bool,
    digits: String,
    point: i32,
}

impl Decimal {
    fn of(float: f64) -> Self {
        let text = format!("{:e}", float.abs());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        let point = exponent.parse::<i32>().map_or(0, |exponent| exponent + 1);
        Self { negative: float.is_sign_negative(), digits, point }
    }

    /// Without an exponent.
    fn positional(&self) -> String {
        let digits = &self.digits;
        let Ok(point) = usize::try_from(self.point) else {
            return format!(
                "0.{:0>width$}",
                digits,
                width = digits.len() + self.point.unsigned_abs() as usize
            );
        };
        match digits.split_at_checked(point) {
            Some(("", fraction)) => format!("0.{fraction}"),
            Some((whole, "")) => whole.to_owned(),
            Some((whole, fraction)) => format!("{whole}.{fraction}"),
            None => format!("{digits:0<point$}"),
        }
    }

    /// With an exponent of at least so many digits.
    fn scientific(&self, least: usize) -> String {
        let (first, rest) = self.digits.split_at(1);
        let mut text = first.to_owned();
        if !rest.is_empty() {
            let _infallible = write!(text, ".{rest}");
        }
        let exponent = self.point - 1;
        let sign = if exponent < 0 { '-' } else { '+' };
        let _infallible = write!(text, "e{sign}{:0least$}", exponent.unsigned_abs());
        text
    }

    fn signed(&self, text: String) -> String {
        if self.negative { format!("-{text}") } else { text }
    }
}

fn ecmascript_float(float: f64) -> String {
    if float == 0.0 {
        return "0".to_owned();
    }
    let decimal = Decimal::of(float);
    let positional = -6 < decimal.point && decimal.point <= 21;
    decimal.signed(if positional { decimal.positional() } else { decimal.scientific(1) })
}

fn python_float(float: f64) -> String {
    let decimal = Decimal::of(float);
    let text = if -4 < decimal.point && decimal.point <= 16 {
        let text = decimal.positional();
        if text.contains('.') { text } else { format!("{text}.0") }
    } else {
        decimal.scientific(2)
    };
    decimal.signed(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn text_of(value: &Value) -> String {
        String::from_utf8(canonical(value)).unwrap()
    }

    fn python_of(value: &Value) -> String {
        let mut text = Vec::new();
        write_python(&mut text, value);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_examples_of_the_rfc_come_out_as_it_prints_them() {
        let value: Value = serde_json::from_str(
            r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#,
        )
        .unwrap();
        assert_eq!(
            text_of(&value),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    #[test]
    fn names_are_ordered_by_utf_16_units() {
        let value =
            json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        let text = text_of(&value);
        let order: Vec<u64> =
            text.split(':').skip(1).filter_map(|rest| rest[..1].parse::<u64>().ok()).collect();
        assert_eq!(order, [2, 4, 6, 7, 1, 5, 3]);
    }

    #[test]
    fn floats_are_written_as_ecmascript_does() {
        // Bits and text from appendix B of the RFC.
        for (bits, text) in [
            (0x0000_0000_0000_0000_u64, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        ] {
            assert_eq!(ecmascript_float(f64::from_bits(bits)), text, "{bits:x}");
        }
    }

    #[test]
    fn large_whole_numbers_keep_their_last_digit() {
        assert_eq!(text_of(&json!([u64::MAX, i64::MIN])), "[18446744073709551615,-9223372036854775808]");
    }

    #[test]
    fn pythons_floats_and_escapes_come_out_as_python_prints_them() {
        // Printed by Python 3: json.dumps(value, sort_keys=True).
        let value = json!({
            "z": [0.1, 1.0, 1e16, 1e15, 1e-5, 0.0001, -0.0, 1.5e300, 123_456_789.125, 1e22],
            "a": "é\u{1f600}\u{7f}\n\"\\/\u{1}", "\u{ff5e}": true, "\u{1f600}": null, "e": [], "o": {},
        });
        assert_eq!(
            python_of(&value),
            r#"{"a": "\u00e9\ud83d\ude00\u007f\n\"\\/\u0001", "e": [], "o": {}, "z": [0.1, 1.0, 1e+16, 1000000000000000.0, 1e-05, 0.0001, -0.0, 1.5e+300, 123456789.125, 1e+22], "\uff5e": true, "\ud83d\ude00": null}"#
        );
    }

    /// Any JSON whose floats are no whole numbers: `1.0` and `1` are one number and have one canonical form.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let float = any::<f64>().prop_filter("whole", |float| float.is_finite() && float.fract() != 0.0);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            float.prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
           #[test]
           fn the_canonical_form_says_the_same_and_is_its_own(value in any_json()) {
               let text = canonical(&value);
               let read: Value = serde_json::from_slice(&text).unwrap();
               prop_assert_eq!(&read, &value);
               prop_assert_eq!(canonical(&read), text);
           }

           #[test]
           fn pythons_form_says_the_same_in_ascii(value in any_json()) {
               let text = python_of(&value);
               prop_assert!(text.is_ascii());
               prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
           }

           #[test]
           fn the_order_of_members_does_not_matter(members in prop::collection::vec((any::<String>(), 0_u8..9), 0..8)) {
               let unique: std::collections::BTreeMap<_, _> = members.into_iter().collect();
               let forwards: serde_json::Map<_, _> = unique.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
               let backwards: serde_json::Map<_, _> = unique.iter().rev().map(|(name, value)| (name.clone(), json!(value))).collect();
               prop_assert_eq!(canonical(&Value::Object(forwards)), canonical(&Value::Object(backwards)));
           }

           #[test]
           fn any_float_reads_back_as_itself(bits in any::<u64>()) {
               let float = f64::from_bits(bits);
               prop_assume!(float.is_finite());
               // Both zeros are 0.
    prop_assert_eq!(ecmascript_float(float).parse::<f64>().unwrap().to_bits(), (float + 0.0).to_bits());
               prop_assert_eq!(python_float(float).parse::<f64>().unwrap().to_bits(), bits);
           }
       }
}
