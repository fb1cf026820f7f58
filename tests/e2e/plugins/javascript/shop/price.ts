interface Article {
  price?: number;
}

/** Returns the price of an article, which must have one. */
export function price(article: Article): number {
  try {
    return cents(article);
  } catch (error) {
    throw new RangeError("no price", { cause: error });
  }
}

function cents(article: Article): number {
  return (article.price as unknown as { valueOf(): number }).valueOf();
}
