//! Holds an input against the table.

use serde_json::{Map, Value};

use super::{Bounds, Model, Operation, Shape};

/// What an input has that the table does not allow.
#[derive(Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It is of another type: what it is where.
    Type(String),
    /// A member is out of range: which one, and what has to hold for it.
    Constraint { member: String, constraint: String },
}

impl Invalid {
    fn constraint(member: &str, constraint: impl Into<String>) -> Self {
        Self::Constraint { member: member.to_owned(), constraint: constraint.into() }
    }

    fn wrong_type(member: &str, wanted: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a structure",
        };
        Self::Type(format!("{member} must be {wanted}, and is {found}"))
    }
}

impl Model {
    /// Checks an operation's input, and takes from it what the operation does not know, and members that are null:
    /// those are absent.
    ///
    /// # Errors
    /// The first thing that is not allowed.
    pub fn check(&self, operation: &Operation, input: &mut Map<String, Value>) -> Result<(), Invalid> {
        self.check_members(operation.input, "", input)
    }

    fn check_members(&self, shape: &str, path: &str, input: &mut Map<String, Value>) -> Result<(), Invalid> {
        let Some(Shape::Structure(members)) = self.shapes.get(shape) else { return Ok(()) };
        input.retain(|name, value| !value.is_null() && members.iter().any(|member| member.name == name));
        for member in members {
            let path = if path.is_empty() { member.name.to_owned() } else { format!("{path}.{}", member.name) };
            match input.get_mut(member.name) {
                Some(value) => self.check_value(member.shape, &path, value)?,
                None if member.is_required => return Err(Invalid::constraint(&path, "Member must not be null")),
                None => {}
            }
        }
        Ok(())
    }

    fn check_value(&self, shape: &str, path: &str, value: &mut Value) -> Result<(), Invalid> {
        let Some(found) = self.shapes.get(shape) else { return Ok(()) };
        match (found, value) {
            (Shape::Structure(_), Value::Object(members)) => self.check_members(shape, path, members),
            (Shape::List { bounds, of }, Value::Array(items)) => {
                bounds.check_len(path, items.len())?;
                let mut numbered = items.iter_mut().enumerate();
                numbered.try_for_each(|(number, item)| self.check_value(of, &format!("{path}.{}", number + 1), item))
            }
            (Shape::Map { value }, Value::Object(members)) => {
                let mut members = members.iter_mut();
                members.try_for_each(|(name, member)| self.check_value(value, &format!("{path}.{name}"), member))
            }
            (Shape::Enum(allowed), Value::String(text)) => {
                if allowed.contains(&text.as_str()) {
                    return Ok(());
                }
                let constraint = format!("Member must satisfy enum value set: [{}]", allowed.join(", "));
                Err(Invalid::constraint(path, constraint))
            }
            (Shape::String { bounds, pattern }, Value::String(text)) => {
                bounds.check_len(path, text.chars().count())?;
                match pattern {
                    Some((shown, pattern)) if !pattern.is_match(text) => {
                        Err(Invalid::constraint(path, format!("must satisfy regular expression '{shown}'")))
                    }
                    _ => Ok(()),
                }
            }
            (Shape::Blob(bounds), Value::String(text)) => {
                let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
                bounds.check_len(path, (text.len() / 4 * 3).saturating_sub(padding)) // of what it encodes
            }
            (Shape::Integer(bounds), Value::Number(number)) if number.is_i64() || number.is_u64() => {
                bounds.check_value(path, number.as_i64().unwrap_or(i64::MAX))
            }
            (Shape::Double | Shape::Timestamp, Value::Number(_)) | (Shape::Boolean, Value::Bool(_)) => Ok(()),
            (shape, value) => Err(Invalid::wrong_type(path, shape.called(), value)),
        }
    }
}

impl Shape {
    fn called(&self) -> &'static str {
        match self {
            Self::Structure(_) | Self::Map { .. } => "a structure",
            Self::List { .. } => "a list",
            Self::Enum(_) | Self::String { .. } | Self::Blob(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Double | Self::Timestamp => "a number",
            Self::Boolean => "a boolean",
        }
    }
}

impl Bounds {
    fn check_len(self, path: &str, len: usize) -> Result<(), Invalid> {
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        self.check(path, len, "have length")
    }

    fn check_value(self, path: &str, value: i64) -> Result<(), Invalid> {
        self.check(path, value, "have value")
    }

    fn check(self, path: &str, value: i64, what: &str) -> Result<(), Invalid> {
        let (over, bound) = match (self.min, self.max) {
            (Some(min), _) if value < min => ("greater than or equal to", min),
            (_, Some(max)) if value > max => ("less than or equal to", max),
            _ => return Ok(()),
        };
        Err(Invalid::constraint(path, format!("Member must {what} {over} {bound}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ECR;
    use super::*;

    fn checked(operation: &str, mut input: Value) -> Result<Value, Invalid> {
        let operation = ECR.operation(operation).unwrap();
        ECR.check(operation, input.as_object_mut().unwrap())?;
        Ok(input)
    }

    #[test]
    fn what_is_absent_null_or_unknown_is_no_member() {
        let input = json!({ "repositoryName": "a/b", "registryId": null, "unknown": 1 });
        assert_eq!(checked("CreateRepository", input), Ok(json!({ "repositoryName": "a/b" })));
    }

    #[test]
    fn what_the_table_does_not_allow_is_refused_with_the_member() {
        let put = |member: &str, value: Value| json!({ "repositoryName": "a/b", member: value });
        let cases = [
            ("CreateRepository", json!({}), "repositoryName", "must not be null"),
            ("CreateRepository", json!({ "repositoryName": "a" }), "repositoryName", "greater than or equal to 2"),
            ("CreateRepository", json!({ "repositoryName": "A/b" }), "repositoryName", "regular expression"),
            ("CreateRepository", json!({ "repositoryName": "a/b\n" }), "repositoryName", "regular expression"),
            ("CreateRepository", put("imageTagMutability", json!("no")), "imageTagMutability", "[MUTABLE, IMMUTABLE"),
            ("CreateRepository", put("tags", json!([{ "Key": "k" }])), "tags.1.Value", "must not be null"),
            ("ListImages", put("maxResults", json!(0)), "maxResults", "value greater than or equal to 1"),
            ("ListImages", put("maxResults", json!(1001)), "maxResults", "value less than or equal to 1000"),
            ("BatchGetImage", put("imageIds", json!([])), "imageIds", "length greater than or equal to 1"),
            ("ListImages", put("registryId", json!("12345678901")), "registryId", "[0-9]{12}"),
        ];
        for (operation, input, member, constraint) in cases {
            match checked(operation, input) {
                Err(Invalid::Constraint { member: found, constraint: text }) => {
                    assert!(found == member && text.contains(constraint), "{found}: {text}");
                }
                other => panic!("{member}: {other:?}"),
            }
        }
        for value in [json!(1), json!([]), json!({}), json!(true), json!(1.5)] {
            let found = checked("CreateRepository", json!({ "repositoryName": value }));
            assert!(matches!(found, Err(Invalid::Type(_))), "{found:?}");
        }
    }
}
