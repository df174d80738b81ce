"""The conformance suite: what every method must do, as one function a promise.

    from transference.testing import check_method

    check_method("my_package.my_module:MyMethod")

Each check takes a `Subject`, which makes fresh methods and small planted rows, and raises when the promise is broken.
Which checks apply follows from the card. The whole suite takes seconds a method.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from transference.core.errors import collect
from transference.core.method import Method
from transference.core.spec import TaskKind
from transference.testing import answering, beyond, contract, inputs, reading
from transference.testing.subject import ConformanceError, Subject

__all__ = ["Check", "ConformanceError", "Subject", "check_method", "checks"]


@dataclass(frozen=True)
class Check:
    """One promise: its name, the function that puts a subject to the test, and whom it concerns."""

    name: str
    run: Callable[[Subject], None]
    concerns: Callable[[Subject], bool]

    def __call__(self, subject: Subject) -> None:
        """Raises an exception when the promise is broken."""
        self.run(subject)


def _everyone(subject: Subject) -> bool:
    return True


def _neural(subject: Subject) -> bool:
    return subject.is_neural


def _classifier(subject: Subject) -> bool:
    return subject.task == "classification"


def _several(subject: Subject) -> bool:
    return subject.modalities > 1


def _three(subject: Subject) -> bool:
    most = subject.card.modalities[1]
    return most is None or most >= 3


def _unlabelled(subject: Subject) -> bool:
    return "unlabelled" in subject.card.needs


def _primary_of_several(subject: Subject) -> bool:
    return subject.card.at_test == "primary" and subject.modalities > 1


def _asked(*tasks: TaskKind) -> Callable[[Subject], bool]:
    return lambda subject: not subject.tasks.isdisjoint(tasks)


def _partial(subject: Subject) -> bool:
    return subject.card.at_test != "all"


_CHECKS: tuple[tuple[Callable[[Subject], None], Callable[[Subject], bool]], ...] = (
    (contract.constructor_stores, _everyone),
    (contract.clones, _everyone),
    (contract.parameters_survive_fit, _everyone),
    (contract.fitting_again_starts_afresh, _everyone),
    (contract.same_seed_same_bits, _everyone),
    (contract.another_seed_differs, _neural),
    (contract.global_generators_untouched, _everyone),
    (contract.card_is_filled_in, _everyone),
    (contract.state_restores, _neural),
    (contract.every_parameter_learns, _neural),
    (contract.history_is_a_table, _neural),
    (contract.updates_keep_to_the_schedule, _everyone),
    (contract.works_in_scikit_learn, _everyone),
    (answering.answers_have_shape, _everyone),
    (answering.labels_are_names, _classifier),
    (answering.rows_do_not_touch, _everyone),
    (answering.one_row_is_enough, _everyone),
    (answering.beats_chance, _everyone),
    (answering.unlabelled_rows_are_taken, _everyone),
    (answering.three_modalities_are_taken, _three),
    (answering.sequences_are_taken, _everyone),
    (answering.representations_have_shape, _everyone),
    (answering.deployed_answers_alike, _everyone),
    (reading.rows_with_holes_are_taken, _several),
    (reading.absent_content_is_ignored, _several),
    (reading.reads_only_what_the_card_says, _partial),
    (reading.uses_what_it_declares, _several),
    (reading.unlabelled_rows_teach, _unlabelled),
    (reading.rows_without_the_others_teach, _primary_of_several),
    (beyond.learns_without_labels, _asked("unsupervised")),
    (beyond.matches_rows, _asked("retrieval", "zero_shot")),
    (beyond.plays_episodes, _asked("few_shot")),
    (beyond.generates_the_others, _asked("generation")),
    (inputs.inputs_are_left_alone, _everyone),
    (inputs.not_fitted_is_said, _everyone),
    (inputs.wrong_training_input_is_refused, _everyone),
    (inputs.wrong_questions_are_refused, _everyone),
    (inputs.wrong_parameters_are_refused, _everyone),
    (inputs.other_tasks_are_refused, _everyone),
)


def checks(subject: Subject | None = None) -> list[Check]:
    """All checks, or those that concern a subject."""
    every = [Check(run.__name__, run, concerns) for run, concerns in _CHECKS]
    return every if subject is None else [check for check in every if check.concerns(subject)]


def check_method(method: str | type[Method] | Callable[[], Method], tasks: Collection[TaskKind] | None = None) -> None:
    """Put a method to every test that concerns it.

    Parameters
    ----------
    method
        An id (``"fusion.late"``, ``"package.module:Class"``), a class, or a function that returns a new method.
    tasks
        The tasks to try; None = all that the card names.

    Raises
    ------
    ConformanceError
        Names every broken promise.
    """
    subject = Subject(method, tasks)
    with collect(f"{subject.name} does not keep what every method promises", ConformanceError) as faults:
        for check in checks(subject):
            try:
                check(subject)
            except Exception as error:  # whatever a method raises is a broken promise
                faults.add(f"{check.name}: {error if isinstance(error, ConformanceError) else repr(error)}")
