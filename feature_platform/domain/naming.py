"""Names of feature columns in an answer: the same for training sets and for serving.

Rule: each feature has the shortest form that nothing else claims, compared without regard to case as DuckDB does:
`feature`, else `view__feature` (Feast's form), else `view_v2__feature`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from feature_platform.domain.feature_service import ViewSelection
from feature_platform.errors import RequestError, chosen_from


def name_features(
    selections: Sequence[ViewSelection], taken: Collection[str], *, full_feature_names: bool = False
) -> tuple[str, ...]:
    """A name for each selected feature, in the order of the selections.

    Args:
        selections: what was asked for.
        taken: names of the other columns of the answer.
        full_feature_names: begin with the second form.

    Raises:
        RequestError: the longest form is taken too.

    >>> delays = ViewSelection(view="delays", version=1, features=("mean", "count"))
    >>> weather = ViewSelection(view="weather", version=2, features=("mean",))
    >>> name_features([delays, weather], taken={"origin"})
    ('delays__mean', 'count', 'weather__mean')
    """
    forms = [
        [
            *([] if full_feature_names else [feature]),
            f"{selection.view}__{feature}",
            f"{selection.view}_v{selection.version}__{feature}",
        ]
        for selection in selections
        for feature in selection.features
    ]
    return first_free(forms, taken)


def first_free(forms: Sequence[Sequence[str]], taken: Collection[str]) -> tuple[str, ...]:
    """For each column the first of its forms that nothing else claims.

    Raises:
        RequestError: the last form of a column is claimed too.
    """
    others = {column.lower() for column in taken}
    # a form may be claimed by several; all that share a name move on to their next form
    chosen = [0] * len(forms)
    while True:
        names = [form[index] for form, index in zip(forms, chosen, strict=True)]
        count = Counter(name.lower() for name in names)
        clashing = [i for i, name in enumerate(names) if count[name.lower()] > 1 or name.lower() in others]
        if not clashing:
            return tuple(names)
        movable = [i for i in clashing if chosen[i] + 1 < len(forms[i])]
        if not movable:
            raise RequestError(
                "two columns of the answer would have the same name",
                found=chosen_from({names[i] for i in clashing}),
                hint="rename the other column, or ask for the feature once",
            )
        for i in movable:
            chosen[i] += 1
