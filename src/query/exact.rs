//! Numbers with a point, where they are compared with decimals: exact, as other engines take them. DataFusion takes
//! `12.30` for a double, which is not quite 12.30, and finds no such price.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

/// Digits of the widest decimal.
const DIGITS_MAX: usize = 38;

/// Makes decimals of such literals, before types are brought together.
#[derive(Debug)]
pub(super) struct ExactLiterals;

impl FunctionRewrite for ExactLiterals {
    fn name(&self) -> &'static str {
        "exact_literals"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _config: &ConfigOptions) -> Result<Transformed<Expr>> {
        // What has no type yet is left to those that tell why.
        let is_decimal = |expr: &Expr| matches!(expr.get_type(schema), Ok(DataType::Decimal128(..)));
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
                let (of_left, of_right) = (is_decimal(&left), is_decimal(&right));
                let left = if of_right { exact(*left) } else { *left };
                let right = if of_left { exact(*right) } else { *right };
                Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: left.into(), op, right: right.into() }))
            }
            Expr::InList(InList { expr, list, negated }) if is_decimal(&expr) => {
                let list = list.into_iter().map(exact).collect();
                Transformed::yes(Expr::InList(InList { expr, list, negated }))
            }
            Expr::Between(Between { expr, negated, low, high }) if is_decimal(&expr) => {
                let (low, high) = (exact(*low).into(), exact(*high).into());
                Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
            }
            other => Transformed::no(other),
        })
    }
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// The decimal that a literal was written as; anything else as it is.
fn exact(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), metadata) => match decimal(value) {
            Some(decimal) => Expr::Literal(decimal, metadata),
            None => Expr::Literal(ScalarValue::Float64(Some(value)), metadata),
        },
        other => other,
    }
}

/// The shortest decimal that stands for a double, which is the one that was written, up to 15 digits.
fn decimal(value: f64) -> Option<ScalarValue> {
    let text = value.is_finite().then(|| value.to_string())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let unscaled: i128 = format!("{whole}{fraction}").parse().ok()?;
    let digits = whole.trim_start_matches(['-', '0']).len() + fraction.len();
    let (precision, scale) = (u8::try_from(digits.max(1)).ok()?, i8::try_from(fraction.len()).ok()?);
    (digits <= DIGITS_MAX).then_some(ScalarValue::Decimal128(Some(unscaled), precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_is_the_decimal_that_was_written() {
        let check = |value: f64, wanted: Option<(i128, u8, i8)>| {
            let wanted =
                wanted.map(|(unscaled, precision, scale)| ScalarValue::Decimal128(Some(unscaled), precision, scale));
            assert_eq!(decimal(value), wanted, "{value}");
        };
        check(12.3, Some((123, 3, 1)));
        check(-4130.23, Some((-413_023, 6, 2)));
        check(0.05, Some((5, 2, 2)));
        check(0.0, Some((0, 1, 0)));
        check(-7.0, Some((-7, 1, 0)));
        check(1e20, Some((100_000_000_000_000_000_000, 21, 0)));
        check(1e300, None);
        check(5e-324, None);
        check(f64::NAN, None);
        check(f64::INFINITY, None);
    }
}
