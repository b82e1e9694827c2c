"""Agreement of measured with true volumes: bias, spread, error and the limits of Bland and Altman."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

#: Standard deviations on either side of the bias that hold 95 % of normal differences.
LIMIT_SD = 1.96


@dataclass(frozen=True)
class VolumeAgreement:
    """How measured volumes agree with true ones; differences are measured minus true, in mL.

    Attributes:
        n: number of cases.
        bias_ml: mean difference.
        sd_ml: standard deviation of the differences (n - 1).
        rmse_ml: root of the mean squared difference.
        mae_ml: mean absolute difference.
        r2: squared correlation of measured and true volumes, the R2 of a line fitted through them.
        r2_identity: 1 - sum of squared differences / sum of squares about the true mean; this one sees a bias.
        low_limit_ml, high_limit_ml: limits of agreement, bias -+ 1.96 SD (Bland and Altman, Lancet 1:307, 1986).
    """

    n: int
    bias_ml: float
    sd_ml: float
    rmse_ml: float
    mae_ml: float
    r2: float
    r2_identity: float
    low_limit_ml: float
    high_limit_ml: float

    @classmethod
    def of(cls, measured_ml: np.ndarray, true_ml: np.ndarray) -> VolumeAgreement:
        """Compare (n,) volumes case by case; what too few or equal cases leave undefined is NaN."""
        measured, true = np.asarray(measured_ml, float), np.asarray(true_ml, float)
        if measured.shape != true.shape or measured.ndim != 1:
            raise ValueError(f"volumes of shapes {measured.shape} and {true.shape} cannot be paired")
        n, error = len(true), measured - true
        if not n:
            return cls(0, *[math.nan] * 8)
        bias = float(error.mean())
        sd = float(error.std(ddof=1)) if n > 1 else math.nan
        spread = float(((true - true.mean()) ** 2).sum())
        both_vary = n > 1 and spread > 0 and np.ptp(measured) > 0
        r2 = float(np.corrcoef(measured, true)[0, 1] ** 2) if both_vary else math.nan
        return cls(
            n=n,
            bias_ml=bias,
            sd_ml=sd,
            rmse_ml=float(np.sqrt((error**2).mean())),
            mae_ml=float(np.abs(error).mean()),
            r2=r2,
            r2_identity=1 - float((error**2).sum()) / spread if spread > 0 else math.nan,
            low_limit_ml=bias - LIMIT_SD * sd,
            high_limit_ml=bias + LIMIT_SD * sd,
        )

    def to_dict(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)
