"""What tenants are in every store that has them: nothing of another's is read, ranked, changed or counted."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .contracts import TEXTS
from .filter_contract import WHERE, FilterContract, random_filter
from .memory_store import MemoryStore

if TYPE_CHECKING:
    from crossrag.protocols import Store

TENANTS = ("", "blue", "blue-2")


class TenantContract(FilterContract):
    """Tenants of a store; inherit it beside `StoreContract`."""

    def fill_tenants(self, store: Store) -> dict[str, Store]:
        """The same ids in each, nearly the same texts, and the owner's name in the metadata."""
        stores = {tenant: store.for_tenant(tenant) for tenant in TENANTS}
        for number, (tenant, own) in enumerate(stores.items()):
            self.fill_owned(own, tenant, number)
        return stores

    def fill_owned(self, store: Store, tenant: str, number: int) -> None:
        """One tenant's document; each has another number of chunks with the word `backup`."""
        texts = [f"{text} {'backup ' * number}" for text in TEXTS[: 3 + number]]
        chunks = [
            replace(self.chunk("doc", position, text), metadata={"owner": tenant})
            for position, text in enumerate(texts)
        ]
        store.upsert(chunks, self.embedder.embed_documents(texts), self.terms.encode_documents(texts))

    def test_no_tenant_meets_another(self, store: Store) -> None:
        """Whatever is asked: filters that name tenants, negations, generations, neighbours, counts, scans."""
        stores = self.fill_tenants(store)
        chance = random.Random(self.seed)  # noqa: S311 - tests, not secrets
        print(f"seed {self.seed}")  # noqa: T201 - shown where the test fails
        for _ in range(40):
            tenant = chance.choice(TENANTS)
            where = chance.choice([*_prying(), random_filter(chance), *WHERE[:3]])
            self.check_own(stores[tenant], tenant, chance.choice(TEXTS), where)
        for tenant, own in stores.items():
            count = 3 + TENANTS.index(tenant)
            assert (own.count(), own.count("doc")) == (count, count)
            for chunk in [point.chunk for point in own.scan()]:
                assert {near.metadata["owner"] for near in own.neighbours(chunk, 10)} == {tenant}

    def check_own(self, store: Store, tenant: str, text: str, where: dict[str, Any]) -> None:
        """A search and a scan give this tenant's chunks alone."""
        query = self.embedder.embed_query(text), self.terms.encode_query(text)
        for hidden in ((), ("2",)):
            found = store.search(*query, limit=50, where=where, hidden=hidden)
            owners = {hit.chunk.metadata["owner"] for hit in (*found.dense, *found.sparse)}
            assert owners <= {tenant}, (tenant, where)
        assert {point.chunk.metadata["owner"] for point in store.scan(where=where)} <= {tenant}, where

    def test_scores_tell_nothing_of_other_tenants(self, store: Store) -> None:
        """The rarity of a term, too, is counted within the tenant: scores are those of a store of its own."""
        stores = self.fill_tenants(store)
        query = self.embedder.embed_query("backup whale"), self.terms.encode_query("backup whale")
        for number, (tenant, own) in enumerate(stores.items()):
            alone = MemoryStore()
            self.fill_owned(alone, tenant, number)
            expected, found = alone.search(*query, limit=10), own.search(*query, limit=10)
            for leg, wanted in ((found.dense, expected.dense), (found.sparse, expected.sparse)):
                assert [hit.chunk for hit in leg] == [hit.chunk for hit in wanted]
                assert all(
                    abs(hit.sparse - other.sparse) < 1e-4 for hit, other in zip(leg, wanted, strict=True)
                )

    def test_no_tenant_changes_another(self, store: Store) -> None:
        """The same chunk ids and the same document id, written again and deleted."""
        stores = self.fill_tenants(store)
        before = {tenant: [point.chunk for point in own.scan()] for tenant, own in stores.items()}
        self.fill_owned(stores["blue"], "blue", 1)
        stores["blue"].delete_document("doc", keep_generation="2")
        assert stores["blue"].count() == 0
        for tenant in ("", "blue-2"):
            assert [point.chunk for point in stores[tenant].scan()] == before[tenant]


def _prying() -> list[dict[str, Any]]:
    named: list[dict[str, Any]] = [{key: name} for key in ("tenant", "owner") for name in TENANTS if name]
    return [
        *named,
        *({"not": where} for where in named),
        {"or": [*named, {"not": {"owner": "nobody"}}]},
        {"not": {"and": [{"owner": ["blue", "blue-2"]}, {"tenant": {"prefix": "b"}}]}},
    ]
