//! The operators of conditions, by their names.

use std::cmp::Ordering;

use super::pattern::{Case, Wildcards};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sense {
    Is,
    IsNot,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Quantifier {
    None,
    ForAllValues,
    ForAnyValue,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum WhenMissing {
    /// False, or true if the operator is negated.
    AsOperator,
    /// `IfExists`.
    Holds,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// What an operator compares.
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    Text(Wildcards, Case),
    Arn,
    Bool,
    Binary,
    Number(Comparison),
    Date(Comparison),
    Address,
    Null,
}

#[derive(Clone, Copy)]
pub(super) struct Operator {
    pub(super) sense: Sense,
    pub(super) quantifier: Quantifier,
    pub(super) when_missing: WhenMissing,
    pub(super) family: Family,
}

impl Operator {
    /// An operator by its name, whose case does not matter.
    pub(super) fn parse(name: &str) -> Option<Self> {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        use Sense::{Is, IsNot};

        let name = name.to_ascii_lowercase();
        let (quantifier, name) = match name.split_once(':') {
            None => (Quantifier::None, name.as_str()),
            Some(("forallvalues", name)) => (Quantifier::ForAllValues, name),
            Some(("foranyvalue", name)) => (Quantifier::ForAnyValue, name),
            Some(_) => return None,
        };
        let (when_missing, name) = match name.strip_suffix("ifexists") {
            Some(name) => (WhenMissing::Holds, name),
            None => (WhenMissing::AsOperator, name),
        };
        let (sense, family) = match name {
            "stringequals" => (Is, Family::Text(Wildcards::Literal, Case::Sensitive)),
            "stringnotequals" => (IsNot, Family::Text(Wildcards::Literal, Case::Sensitive)),
            "stringequalsignorecase" => (Is, Family::Text(Wildcards::Literal, Case::Ignored)),
            "stringnotequalsignorecase" => (IsNot, Family::Text(Wildcards::Literal, Case::Ignored)),
            "stringlike" => (Is, Family::Text(Wildcards::Active, Case::Sensitive)),
            "stringnotlike" => (IsNot, Family::Text(Wildcards::Active, Case::Sensitive)),
            "arnequals" | "arnlike" => (Is, Family::Arn),
            "arnnotequals" | "arnnotlike" => (IsNot, Family::Arn),
            "numericequals" => (Is, Family::Number(Equal)),
            "numericnotequals" => (IsNot, Family::Number(Equal)),
            "numericlessthan" => (Is, Family::Number(Less)),
            "numericlessthanequals" => (Is, Family::Number(LessOrEqual)),
            "numericgreaterthan" => (Is, Family::Number(Greater)),
            "numericgreaterthanequals" => (Is, Family::Number(GreaterOrEqual)),
            "dateequals" => (Is, Family::Date(Equal)),
            "datenotequals" => (IsNot, Family::Date(Equal)),
            "datelessthan" => (Is, Family::Date(Less)),
            "datelessthanequals" => (Is, Family::Date(LessOrEqual)),
            "dategreaterthan" => (Is, Family::Date(Greater)),
            "dategreaterthanequals" => (Is, Family::Date(GreaterOrEqual)),
            "ipaddress" => (Is, Family::Address),
            "notipaddress" => (IsNot, Family::Address),
            "bool" => (Is, Family::Bool),
            "binaryequals" => (Is, Family::Binary),
            "null" if matches!((quantifier, when_missing), (Quantifier::None, WhenMissing::AsOperator)) => {
                (Is, Family::Null)
            }
            _ => return None,
        };
        Some(Self { sense, quantifier, when_missing, family })
    }
}
