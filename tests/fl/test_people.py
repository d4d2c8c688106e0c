"""Sign-in codes: once, within ten minutes, and nothing is told of why one is refused."""

import pytest

from fl.exceptions import NotAllowed
from fl.models import SignInCode
from fl.people import issue_sign_in_code, redeem_sign_in_code
from tests.builders import NOW, at, person
from tests.fl.threads import at_once

pytestmark = pytest.mark.django_db


def test_a_code_signs_its_person_in_once():
    ada = person("ada", "operator")
    person("bob")
    code = issue_sign_in_code(user=ada, now=NOW)

    assert redeem_sign_in_code(code=code, now=at(599)) == ada
    with pytest.raises(NotAllowed):
        redeem_sign_in_code(code=code, now=at(599))


def test_only_a_hash_of_the_code_is_kept():
    code = issue_sign_in_code(user=person("ada"), now=NOW)

    assert code not in str(SignInCode.objects.values().get())


def test_unknown_used_expired_and_barred_are_answered_alike():
    ada, gone = person("ada"), person("gone")
    used, expired, barred = (issue_sign_in_code(user=user, now=NOW) for user in (ada, ada, gone))
    redeem_sign_in_code(code=used, now=NOW)
    gone.is_active = False
    gone.save()

    answers = set()
    for code, now in ((used, NOW), (expired, at(600)), (barred, NOW), ("unknown", NOW), ("", NOW), ("\0", NOW)):
        with pytest.raises(NotAllowed) as refusal:
            redeem_sign_in_code(code=code, now=now)
        answers.add((refusal.value.message, refusal.value.action, refusal.value.reason_code))

    assert len(answers) == 1


@pytest.mark.django_db(transaction=True)
def test_a_code_works_once_however_many_use_it_at_the_same_time():
    ada = person("ada")
    code = issue_sign_in_code(user=ada, now=NOW)

    outcomes = at_once(*[lambda: redeem_sign_in_code(code=code, now=at(1))] * 4)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NotAllowed"] * 3 + ["User"]
