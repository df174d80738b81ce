"""Each planted defect breaks the promises it should, and no other: the checks bite, and bite in the right place."""

from __future__ import annotations

import defects
import defects_beyond
import pytest
from honest import AnyOf, Centroids, Guess, Linked, Net

from transference.core.method import Method
from transference.testing import ConformanceError, Subject, check_method, checks

PLANTED: dict[type[Method], set[str]] = {
    defects.PositionalConstructor: {"constructor_stores"},
    defects.CopiesArgument: {"constructor_stores", "clones", "works_in_scikit_learn"},  # which clones
    defects.RenamesArgument: {"constructor_stores"},
    defects.LeavesRows: {"parameters_survive_fit"},
    defects.ReplacesArgument: {"parameters_survive_fit"},
    defects.ReturnsNothing: {"parameters_survive_fit"},
    defects.KeepsState: {"fitting_again_starts_afresh"},
    defects.SeedsTheGlobalGenerator: {"global_generators_untouched"},
    defects.DrawsFromTorch: {"global_generators_untouched"},
    defects.DrawsWithoutSeed: {  # all that compare two fits
        "same_seed_same_bits",
        "fitting_again_starts_afresh",
        "absent_content_is_ignored",
        "unlabelled_rows_are_taken",
        "sequences_are_taken",
    },
    defects.ReadsGlobalGenerator: {"same_seed_same_bits"},
    defects.IgnoresSeed: {"another_seed_differs"},
    defects.ChangesInput: {"inputs_are_left_alone"},
    defects.ChangesQuestion: {"inputs_are_left_alone"},
    defects.ReadsTheSecondary: {"reads_only_what_the_card_says"},
    defects.ReadsTheText: {"reads_only_what_the_card_says"},
    defects.ReadsTheOtherSeries: {"reads_only_what_the_card_says"},
    defects.InfersPresence: {"absent_content_is_ignored"},
    defects.NeedsNoPairs: {"uses_what_it_declares"},
    defects.PeeksAtTheSecondary: {"uses_what_it_declares"},
    defects.NeedsTwoExactly: {  # all that give three
        "three_modalities_are_taken",
        "sequences_are_taken",
        "reads_only_what_the_card_says",
    },
    defects.NeedsEverything: {  # all that leave holes
        "rows_with_holes_are_taken",
        "absent_content_is_ignored",
        "rows_without_the_others_teach",
    },
    defects.StumblesOnUnlabelled: {"unlabelled_rows_are_taken", "uses_what_it_declares"},
    defects.TakesUnlabelledForTheLastClass: {"unlabelled_rows_are_taken"},
    defects.OddProbabilities: {"answers_have_shape"},
    defects.NumbersForLabels: {"answers_have_shape", "labels_are_names"},
    defects.ClassesByAppearance: {"labels_are_names"},
    defects.LearnsNothing: {"beats_chance", "unlabelled_rows_are_taken"},
    defects.NormalisesByTheQuestion: {"rows_do_not_touch", "one_row_is_enough"},
    defects.CrashesOnOne: {"one_row_is_enough"},
    defects.RemembersTheLastQuestion: {"one_row_is_enough"},
    defects.ReadsPadding: {"sequences_are_taken"},
    defects.AnswersFromPadding: {"sequences_are_taken"},
    defects.LearnsFromPadding: {"sequences_are_taken"},
    defects.UnusedParameter: {"every_parameter_learns"},
    defects.StateOutsideTheNetwork: {"state_restores"},
    defects.RaggedHistory: {"history_is_a_table"},
    defects.TenTimesTheUpdates: {"updates_keep_to_the_schedule"},
    defects.PreparesForLong: {"updates_keep_to_the_schedule"},
    defects.LearnsNoValues: {"beats_chance"},
    defects.LearnsNoSeveralLabels: {"beats_chance"},
    defects.AnswersInStandardUnits: {"beats_chance"},
    defects.ThrowsUnlabelledRowsAway: {"unlabelled_rows_teach"},
    defects.DropsRowsWithoutTheOthers: {"rows_without_the_others_teach"},
    defects.EmptyCard: {"card_is_filled_in"},
    defects.CannotDoItsTask: {"answers_have_shape", "beats_chance"},
    defects.AcceptsAnything: {"wrong_parameters_are_refused"},
    defects.VagueWhenNotFitted: {"not_fitted_is_said"},
    defects.AnswersRowsWithoutPrimary: {"wrong_questions_are_refused"},
    defects.AcceptsAbsentModalities: {"wrong_training_input_is_refused"},
    defects.FlatRepresentation: {"representations_have_shape"},
    defects.DeploysSomethingElse: {"deployed_answers_alike"},
    defects.ReadsAbsentModalities: {"absent_content_is_ignored"},
    defects.WantsAll: {"reads_only_what_the_card_says"},
    defects_beyond.AnswersWithoutLabels: {"learns_without_labels"},
    defects_beyond.ShowsAnotherEveryTime: {"learns_without_labels"},
    defects_beyond.MatchesAmongCandidates: {"matches_rows"},
    defects_beyond.MatchesWithTheAnswer: {"matches_rows"},
    defects_beyond.MatchesByChance: {"matches_rows"},
    defects_beyond.ShowsWhatTheQueryHides: {"plays_episodes"},
    defects_beyond.NamesByAppearance: {"plays_episodes"},
    defects_beyond.GeneratesTheGiven: {"generates_the_others"},
    defects_beyond.GeneratesNothing: {"generates_the_others"},
}


def broken(subject: Subject) -> dict[str, str]:
    """Name of every promise that is broken -> how."""
    found = {}
    for check in checks(subject):
        try:
            check(subject)
        except Exception as error:
            found[check.name] = repr(error)
    return found


def test_changing_the_content_of_an_argument_is_noticed() -> None:
    assert broken(Subject(lambda: defects.MutatesArgument(options={}))).keys() == {"parameters_survive_fit"}


def test_check_method_names_every_broken_promise() -> None:
    with pytest.raises(
        ConformanceError, match=r"NumbersForLabels does not keep .*: 2 faults\n  1\. answers_have_shape: "
    ):
        check_method(defects.NumbersForLabels)


def test_every_check_has_a_defect_that_breaks_it() -> None:
    """But one: refusing other tasks is done in one place for all methods, and tested there."""
    assert {check.name for check in checks()} - set().union(*PLANTED.values()) == {"other_tasks_are_refused"}


@pytest.mark.parametrize("honest", [Centroids, AnyOf, Linked, Net, Guess])
def test_honest_methods_keep_every_promise(honest: type[Method]) -> None:
    check_method(honest)


@pytest.mark.parametrize("defect", PLANTED, ids=lambda defect: defect.__name__)
def test_a_defect_breaks_the_promises_it_should_and_no_other(defect: type[Method]) -> None:
    found = broken(Subject(defect))
    assert found.keys() == PLANTED[defect], found
