"""The text of the engine's tables."""

from nodeagent import firewall
from nodeagent.firewall import Caps, Doors, Permit, Resident
from store import egress


def rules(*residents: Resident, doors: Doors | None = None, caps: Caps | None = None) -> str:
    return firewall.ruleset("t1", "10.9.0.0/16", "10.9.0.1", "t1-", doors or Doors(), caps or Caps(), residents)


def test_the_tables_are_replaced_in_one_transaction_and_rules_name_no_instance() -> None:
    text, other = rules(Resident("t1-2", "10.9.0.2")), rules()
    assert text.index("delete table inet ebb_t1") < text.index("table inet ebb_t1 {\n")
    assert text.startswith(other.rstrip())
    assert text[len(other.rstrip()) :].strip().split("\n") == [
        'add element inet ebb_t1 owners { "t1-2" . 10.9.0.2 }',
        "add element inet ebb_t1 egress { 10.9.0.2 : goto way_open }",
    ]


def test_what_is_dismissed_is_what_was_admitted_by_its_keys() -> None:
    permit = Permit(egress.parse("private,1.2.3.4:5,10.0.0.0/8,10.1.2.3:5"), "shop")
    resident = Resident("t1-3", "10.9.0.3", permit, 7)
    table = "element inet ebb_t1"
    assert firewall.admit("t1", resident) == [
        f'add {table} owners {{ "t1-3" . 10.9.0.3 }}',
        f"add {table} egress {{ 10.9.0.3 : goto way_private_listed }}",
        f"add {table} listed {{ 10.9.0.3 . 10.0.0.0/8 . 0-65535 }}",
        f"add {table} listed {{ 10.9.0.3 . 1.2.3.4/32 . 5 }}",
        f"add {table} circles {{ 10.9.0.3 : 7 }}",
        f"add {table} members {{ 7 . 10.9.0.3 }}",
    ]
    assert firewall.dismiss("t1", resident) == [
        f'delete {table} owners {{ "t1-3" . 10.9.0.3 }}',
        f"delete {table} egress {{ 10.9.0.3 }}",
        f"delete {table} listed {{ 10.9.0.3 . 10.0.0.0/8 . 0-65535 }}",
        f"delete {table} listed {{ 10.9.0.3 . 1.2.3.4/32 . 5 }}",
        f"delete {table} circles {{ 10.9.0.3 }}",
        f"delete {table} members {{ 7 . 10.9.0.3 }}",
    ]


def test_only_doors_that_are_there_are_open() -> None:
    assert "dnat" not in rules()
    assert "th dport" not in rules().split("chain to_doors")[1].split("}")[0]
    text = rules(doors=Doors(inner=8001, names=8003))
    assert "ip daddr 10.9.0.1 th dport { 8001, 8003 } accept" in text
    assert "tcp dport 80 dnat ip to 10.9.0.1:8001" in text
    assert text.count("dnat") == 3


def test_caps_may_be_lifted() -> None:
    assert "ct count over 4096" in rules()
    assert "limit rate over 250 mbytes/second" in rules()
    lifted = rules(caps=Caps(0, 0))
    assert "ct count" not in lifted
    assert "limit rate" not in lifted
