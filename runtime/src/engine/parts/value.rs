//! The numbers of globals.

use wasm_encoder::{ConstExpr, Ieee32, Ieee64, ValType};
use wasmparser::Operator;

/// A number of a global.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Value {
    I32(i32),
    I64(i64),
    /// The bits of a number of 32 bits.
    F32(u32),
    /// The bits of a number of 64 bits.
    F64(u64),
    V128(u128),
}

impl Value {
    /// Returns the number of a constant expression. `None` unless it is one number and nothing else.
    pub(super) fn of(expression: &wasmparser::ConstExpr<'_>) -> Option<Self> {
        let mut operators = expression.get_operators_reader();
        let value = match operators.read().ok()? {
            Operator::I32Const { value } => Self::I32(value),
            Operator::I64Const { value } => Self::I64(value),
            Operator::F32Const { value } => Self::F32(value.bits()),
            Operator::F64Const { value } => Self::F64(value.bits()),
            Operator::V128Const { value } => Self::V128(u128::from_le_bytes(*value.bytes())),
            _ => return None,
        };
        matches!(operators.read(), Ok(Operator::End)).then_some(value)
    }

    /// Returns the constant expression of the number.
    pub(super) fn expression(self) -> ConstExpr {
        match self {
            Self::I32(value) => ConstExpr::i32_const(value),
            Self::I64(value) => ConstExpr::i64_const(value),
            Self::F32(bits) => ConstExpr::f32_const(Ieee32::new(bits)),
            Self::F64(bits) => ConstExpr::f64_const(Ieee64::new(bits)),
            Self::V128(value) => ConstExpr::v128_const(value.cast_signed()),
        }
    }
}

/// Returns the type of a number as the encoder knows it. `None` for a reference.
pub(super) fn kind(of: wasmparser::ValType) -> Option<ValType> {
    Some(match of {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(_) => return None,
    })
}
